"""The entry point for images in bulk: uploads, which S3 reports through SQS, and batches of a backfill."""
