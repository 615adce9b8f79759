"""The entry point of the queue: uploads that S3 announces through SQS, and batches of a backfill."""
