"""Errors of the export."""

from litelens_client.learning.errors import TrainingError


class ExportRefused(TrainingError):
    """The bundle cannot be exported, or the file cannot be written; the message says why and what to do."""
