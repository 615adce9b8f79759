"""Errors of `litelens import`."""

from litelens_client.learning.errors import TrainingError


class ImportRefused(TrainingError):
    """The model or its labels cannot be imported; the message says what they are and what to do."""
