"""Learn a bundle from photos in class folders. Training uses the modules for photos, metrics and reports too."""
