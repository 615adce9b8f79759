"""The HTTP entry point: API Gateway's events in, responses out."""
