"""AWS, thinly: what is read, written and asked there. Errors are those of adapters.errors; boto3 is imported on use."""
