"""Errors of the quantization of imported models."""

from litelens_client.learning.errors import TrainingError


class QuantizerMissing(TrainingError):
    """The package that quantizes is not installed; the message says how to install it."""


class NotQuantizable(TrainingError):
    """The model cannot become int8; the message says why."""
