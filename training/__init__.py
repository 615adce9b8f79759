"""Train, quantize, evaluate and publish image classifiers: python -m training."""
