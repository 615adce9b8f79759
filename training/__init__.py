"""From images to a published bundle: python -m training."""
