"""Errors of learning and training that are raised on purpose; training.errors defines more."""


class TrainingError(Exception):
    """Base class. The message is a sentence that says what is wrong and what to do."""


class DatasetError(TrainingError):
    """Images are missing, unreadable, or unsuitable for learning."""
