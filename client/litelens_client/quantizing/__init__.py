"""Make an imported float model int8, if it then still gives the same answers."""
