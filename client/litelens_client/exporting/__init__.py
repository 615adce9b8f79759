"""Export a bundle as a single file that other programs can run."""
