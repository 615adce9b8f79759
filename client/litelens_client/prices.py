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

# https://aws.amazon.com/api-gateway/pricing/, for REST APIs.
API_REQUEST = 3.50 / 1_000_000

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

# https://aws.amazon.com/sqs/pricing/, for standard queues.
SQS_REQUEST = 0.40 / 1_000_000

# https://aws.amazon.com/dynamodb/pricing/on-demand/: units of 1 KB for writes and of 4 KB for reads.
TABLE_WRITE = 0.625 / 1_000_000
TABLE_READ = 0.125 / 1_000_000

# https://aws.amazon.com/eventbridge/pricing/, for custom events.
EVENT = 1.00 / 1_000_000

# https://aws.amazon.com/cloudwatch/pricing/, for ingested logs.
LOG_GB = 0.50
