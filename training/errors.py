"""Errors that training raises on purpose.

TrainingError (of litelens_client.learning)
├── DatasetError (of litelens_client.learning)
├── PresetError
├── NetworkError
├── TeacherError
├── FitError
├── QuantizationError
├── GateError
└── RunError
"""

from litelens_client.learning.errors import TrainingError


class PresetError(TrainingError):
    """A preset does not exist, or one of its fields is invalid."""


class NetworkError(TrainingError):
    """The network cannot be built, or its weights cannot be loaded."""


class TeacherError(TrainingError):
    """The teacher of a distillation cannot be loaded, or lacks some of the classes."""


class FitError(TrainingError):
    """The network could not be fitted."""


class QuantizationError(TrainingError):
    """The network could not be converted into a model with integer tensors only."""


class GateError(TrainingError):
    """The model does not meet the conditions for publishing."""


class RunError(TrainingError):
    """A run's folder lacks a file that a step needs, or belongs to another run."""


def first_line(error: Exception) -> str:
    """Return the first line of a library's error message, without the details that follow; its type if it is empty."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__
