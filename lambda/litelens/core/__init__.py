"""Image classification without AWS, environment variables or global state: bytes in, prediction out."""
