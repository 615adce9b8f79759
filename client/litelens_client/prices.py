"""AWS's prices in US dollars, in us-east-1 and before volume discounts, from the pages linked below."""

DATE = "2026-11"
ABOUT = f"us-east-1 in {DATE}"

# https://aws.amazon.com/lambda/pricing/, for x86 and for Arm. The initialization of an environment is billed too:
# https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
LAMBDA_GB_SECOND = 0.0000166667
LAMBDA_ARM_GB_SECOND = 0.0000133334
LAMBDA_REQUEST = 0.20 / 1_000_000

# The same page, for SnapStart with Python: by the function's memory, for as long as a version is published, and for
# each environment that is restored. The duration of a restore is not billed:
# https://docs.aws.amazon.com/lambda/latest/dg/snapstart-monitoring.html
SNAPSTART_CACHE_GB_SECOND = 0.0000015046
SNAPSTART_RESTORE_GB = 0.0001397998

# https://aws.amazon.com/api-gateway/pricing/. A request to an HTTP API counts once for each 512 KB of it.
API_REQUEST = 3.50 / 1_000_000
HTTP_API_REQUEST = 1.00 / 1_000_000
HTTP_API_METER_BYTES = 512 * 1024

# https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer, from AWS to the internet. Requests cost nothing.
DATA_OUT_GB = 0.09

# https://aws.amazon.com/step-functions/pricing/: each batch of a backfill is one transition of a Standard Workflow and
# one Express Workflow, which is billed in units of 64 MB and by the GB-hour.
STATE_TRANSITION = 25.00 / 1_000_000
EXPRESS_REQUEST = 1.00 / 1_000_000
EXPRESS_GB_SECOND = 0.06 / 3600
EXPRESS_GB = 64 / 1024

# https://aws.amazon.com/s3/pricing/, for the storage class Standard.
S3_GET = 0.0004 / 1000
S3_PUT = 0.005 / 1000
S3_LIST = 0.005 / 1000
S3_GB_MONTH = 0.023

# https://aws.amazon.com/sqs/pricing/, for standard queues.
SQS_REQUEST = 0.40 / 1_000_000

# https://aws.amazon.com/dynamodb/pricing/on-demand/: units of 1 KB for writes and of 4 KB for reads.
TABLE_WRITE = 0.625 / 1_000_000
TABLE_READ = 0.125 / 1_000_000
TABLE_GB_MONTH = 0.25

# https://aws.amazon.com/eventbridge/pricing/, for custom events.
EVENT = 1.00 / 1_000_000

# https://aws.amazon.com/cloudwatch/pricing/: ingested logs, kept logs (compressed to 15%, plus 26 bytes for each line),
# and by the month an alarm's metric, an alarm with anomaly detection, a custom metric and a dashboard.
LOG_GB = 0.50
LOG_GB_MONTH = 0.03
LOG_COMPRESSED, LOG_LINE_BYTES = 0.15, 26
ALARM_METRIC, ANOMALY_ALARM = 0.10, 0.30
METRIC = 0.30
DASHBOARD = 3.00

# https://aws.amazon.com/xray/pricing/. A function records the first request of each second and 5% of the others:
# https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
TRACE = 5.00 / 1_000_000
TRACED_A_SECOND, TRACED_SHARE = 1, 0.05

# https://aws.amazon.com/ecr/pricing/
ECR_GB_MONTH = 0.10

# https://aws.amazon.com/kms/pricing/
KMS_KEY_MONTH = 1.00

# https://aws.amazon.com/waf/pricing/: an ACL and a rule by the month, and each request.
WAF_ACL_MONTH, WAF_RULE_MONTH = 5.00, 1.00
WAF_REQUEST = 0.60 / 1_000_000

# https://aws.amazon.com/cloudfront/pricing/, for viewers in the United States: HTTPS requests, transfer to viewers, and
# transfer of requests to an origin.
CLOUDFRONT_REQUEST = 1.00 / 1_000_000
CLOUDFRONT_OUT_GB = 0.085
CLOUDFRONT_ORIGIN_GB = 0.020

# https://aws.amazon.com/rekognition/pricing/, for DetectLabels: the number of images in each tier of a month (None for
# all others) and the price of one.
REKOGNITION_TIERS = ((1_000_000, 0.0010), (4_000_000, 0.0008), (30_000_000, 0.0006), (None, 0.00025))

# Free in each month, without an end, from the pages above and https://aws.amazon.com/free/.
FREE_LAMBDA_REQUESTS = 1_000_000
FREE_LAMBDA_GB_SECONDS = 400_000
FREE_SQS_REQUESTS = 1_000_000
FREE_TABLE_GB = 25
FREE_STATE_TRANSITIONS = 4000
FREE_LOG_GB = 5
FREE_ALARM_METRICS = 10
FREE_METRICS = 10
FREE_DASHBOARDS = 3
FREE_TRACES = 100_000
FREE_CLOUDFRONT_REQUESTS = 10_000_000
FREE_CLOUDFRONT_OUT_GB = 1000
FREE_DATA_OUT_GB = 100
