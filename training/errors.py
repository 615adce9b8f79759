"""What can go wrong in training, for whoever calls it to tell apart.

TrainingError
├── PresetError
├── DatasetError
├── NetworkError
├── TeacherError
├── FitError
├── QuantizationError
├── GateError
└── RunError
"""


class TrainingError(Exception):
    """The message is a sentence that names what is wrong and says what to do."""


class PresetError(TrainingError):
    """A preset is missing or says something that cannot be."""


class DatasetError(TrainingError):
    """The images cannot be had or do not fit the preset."""


class NetworkError(TrainingError):
    """The network cannot be built, or its weights cannot be had."""


class FitError(TrainingError):
    """The network could not be fitted."""


class QuantizationError(TrainingError):
    """The network could not be made into a model of integers only."""


class GateError(TrainingError):
    """The model is not fit to be published."""


class RunError(TrainingError):
    """A run's folder does not hold what a step needs."""


class TeacherError(TrainingError):
    """The teacher of a distillation cannot be loaded, or does not know all classes."""
