"""What becomes of one image, whichever way it came: told to the caller, and written down."""

from handlers.answers import Classification, Failure, classification_of
from handlers.problems import KINDS, document
from handlers.records import record_prediction, record_problem
from litelens.classifier import Classifier, Options


def classify(classifier: Classifier, data: bytes, options: Options, request_id: str) -> Classification:
    """What the image in these bytes shows; raises InputError."""
    prediction = classifier.classify(data, options)
    record_prediction(prediction, classifier.bundle.threshold, len(data), request_id)
    return classification_of(prediction)


def failure(error: Exception, request_id: str) -> Failure:
    """Why an image got no answer; `error` is one that problems.KINDS lists."""
    record_problem(error, request_id)
    return Failure(document(KINDS[type(error)], str(error), request_id))
