"""litelens from the command line."""
