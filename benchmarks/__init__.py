"""What the project's figures come from."""
