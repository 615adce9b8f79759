"""Lambda handlers for the same network with other engines, as users would write them, and with litelens.

Each module has a class Handler. `worker.py` runs one of them in its own process.
"""
