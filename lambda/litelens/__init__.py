"""Image classification on AWS Lambda with int8 TFLite models.

`core` classifies images; `aws` wraps boto3; `api`, `bulk`, `release` and `access` are the entry points of the Lambda
functions.
"""
