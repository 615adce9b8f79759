"""Lambda handlers for one network by the engines that people choose, and litelens' own; all take the same event.

Each file is whole, as a user's own would be, so that it can be read, copied, run and timed alone:
`python benchmarks/peers/by_onnxruntime.py MODEL PHOTO`. Each has a class Handler, which is called with API Gateway's
event as Lambda does; `preprocess` and `invoke` are the two halves of its work. `worker.py` runs one for the contest.
"""
