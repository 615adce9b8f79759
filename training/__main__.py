"""Train an image classifier and publish it as a bundle, with all steps at once or one by one."""

import argparse
import json
import logging
import os
import shlex
import sys
from pathlib import Path

# TensorFlow's C++ code logs fatal errors only; other errors become Python exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_STEP_NAMES = ("all", "fit", "quantize", "evaluate", "report", "publish")
IMPORTED = "imported"


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    # Imported here, because frameworks take seconds to import, and processes that read photos import this file too.
    from litelens.core.errors import LitelensError
    from litelens.core.native_logs import hide_native_logs
    from litelens_client.learning.errors import TrainingError

    # TensorFlow logs about oneDNN and CUDA before it reads TF_CPP_MIN_LOG_LEVEL.
    with hide_native_logs():
        from training.keras_import import read_input_size
        from training.preset import load_preset
        from training.steps import STEPS, Options
    for logger in ("absl", "tensorflow"):
        logging.getLogger(logger).setLevel(logging.ERROR)

    name, changes = _preset_and_changes(given)
    folder = given.run or Path("runs") / (given.name or name)
    try:
        if given.model and (size := read_input_size(Path(given.model))):
            changes = _size_changes(size) + changes
        preset = load_preset(name, changes)
        STEPS[given.step](
            Options(
                preset=preset,
                data=given.data,
                calibration=given.calibration,
                folder=folder,
                models=given.models,
                resume=given.resume,
                examples=not given.no_examples,
                command=_command(given),
            )
        )
    except (LitelensError, TrainingError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(_describe(error, folder))
    except KeyboardInterrupt:
        sys.exit(f"Stopped. To continue a fit in {folder} after its last complete epoch, add --resume.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("step", choices=_STEP_NAMES)
    parser.add_argument("preset", nargs="?", help="name of a file in training/presets; optional with --model")
    parser.add_argument("--data", type=Path, help="folder of class folders, or .npz file in Keras' layout")
    parser.add_argument("--run", type=Path, help="folder of the run (default: runs/NAME, or runs/PRESET)")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder to publish the bundle in (default: models)"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted fit")
    parser.add_argument("--no-examples", action="store_true", help="omit test images from the report")
    parser.add_argument("--name", help="name of the bundle")
    parser.add_argument("--labels", help="file with one class name per line")
    parser.add_argument(
        "--model", help="classifier that was trained elsewhere: a .keras or .h5 file, or a SavedModel folder"
    )
    parser.add_argument(
        "--float32", action="store_true", help="serve the model without quantization, which is exact but slower"
    )
    parser.add_argument("--calibration", type=Path, help="folder of photos, labelled or not, to quantize with")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the preset, such as recipe.batch_size=32 or recipe.phases.0.epochs=3; make the same "
        "changes in every step of a run",
    )
    return parser


def _preset_and_changes(given: argparse.Namespace) -> tuple[str, list[str]]:
    """Return the preset's name and all changes to it, including those from --name, --labels and --model."""
    if not given.preset and not given.model:
        sys.exit("Give a preset from training/presets, or --model FILE to import a model of your own.")
    changes = [f"{field}={_toml(value)}" for field, value in (("name", given.name), ("labels", given.labels)) if value]
    if given.model:
        changes += ['network.architecture="file"', f"network.weights={_toml(given.model)}"]
    if given.float32:
        changes.append('quantization.converters=["none"]')
    return given.preset or IMPORTED, changes + given.set


def _size_changes(size: tuple[int, int]) -> list[str]:
    """Return changes that resize images to the model's height and width; changes after these replace them."""
    return [f"preprocessing.height={size[0]}", f"preprocessing.width={size[1]}"]


def _toml(text: str) -> str:
    """Write a text as a TOML string, for which JSON's syntax is valid too."""
    return json.dumps(text, ensure_ascii=False)


def _command(given: argparse.Namespace) -> str:
    """Return the command that repeats the run in the folder of its files; paths are omitted, as they are private."""
    parts = ["python", "-m", "training", "all", *([given.preset] if given.preset else [])]
    for option in ("data", "calibration", "model", "labels", "name"):
        value = getattr(given, option)
        if value:
            parts += [f"--{option}", value if option == "name" else Path(value).resolve().name]
    for option, is_given in (("--float32", given.float32), ("--no-examples", given.no_examples)):
        parts += [option] if is_given else []
    for change in given.set:
        parts += ["--set", _without_folder(change)]
    return shlex.join(parts)


def _without_folder(change: str) -> str:
    """Remove the folder of an absolute path in a change."""
    field, _, value = change.partition("=")
    return f"{field}={Path(value).name}" if Path(value).is_absolute() else change


def _describe(error: OSError, folder: Path) -> str:
    """Explain an error of the system, such as a full disk."""
    path = error.filename or folder
    reason = error.strerror or str(error)
    return f"{path}: {reason}. Nothing was published; fix this and run the same command again with --resume."


if __name__ == "__main__":
    main()
