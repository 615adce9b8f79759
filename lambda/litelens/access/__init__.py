"""The entry point of API Gateway's Lambda authorizer: decides by a JSON Web Token who may call the API."""
