"""`python -m client classify IMAGE`: the best labels of a photo, by the bundle in LITELENS_BUNDLE."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from litelens.bundle import load_bundle
from litelens.classifier import DEFAULT_TOP_K, Classifier, Prediction
from litelens.errors import LitelensError
from settings import SettingsError, read_settings


def classify(image: bytes, top_k: int) -> Prediction:
    settings = read_settings()
    classifier = Classifier(load_bundle(settings.bundle), settings.limits, settings.threads)
    return classifier.classify(image, top_k)


def table(prediction: Prediction) -> str:
    """The labels and their confidences, best first, and a line when the best is uncertain."""
    width = max(len(candidate.label) for candidate in prediction.candidates)
    lines = [f"{candidate.label:{width}}  {candidate.confidence:6.1%}" for candidate in prediction.candidates]
    if prediction.uncertain:
        lines.append("The best is below the model's threshold: uncertain.")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m client", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("classify", help="print the best labels of a photo")
    command.add_argument("image", type=Path)
    command.add_argument("--top-k", type=int, default=DEFAULT_TOP_K, help="how many labels (%(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    try:
        image = given.image.read_bytes()
    except OSError as error:
        sys.exit(f"{given.image} cannot be read: {error.strerror}")
    try:
        prediction = classify(image, given.top_k)
    except (LitelensError, SettingsError) as error:
        sys.exit(str(error))
    print(json.dumps(dataclasses.asdict(prediction)) if given.json else table(prediction))


if __name__ == "__main__":
    main()
