"""Import a .tflite classifier that was made elsewhere: from an untrusted file to a bundle."""
