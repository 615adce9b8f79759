"""Thin layers over boto3. They raise the errors of litelens.aws.errors, and import boto3 when it is first used."""
