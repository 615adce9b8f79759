"""Image classification with an int8 TFLite model: bytes in, prediction out. No AWS, no environment, no globals."""
