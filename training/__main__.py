"""`python -m training STEP PRESET`: from images to a published bundle, all at once or step by step."""

import argparse
import json
import logging
import os
import shlex
import sys
from pathlib import Path

# TensorFlow's C++ code logs fatal errors only; other errors become Python exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

STEPS = ("all", "fit", "quantize", "evaluate", "report", "publish")
BROUGHT = "brought"


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    # Frameworks take seconds to import, and processes that read photos import this file without need of them.
    from litelens.errors import LitelensError
    from litelens.native_logs import hide_native_logs
    from training.errors import TrainingError

    # TensorFlow logs about oneDNN and CUDA before it reads TF_CPP_MIN_LOG_LEVEL.
    with hide_native_logs():
        from training.preset import load_preset
        from training.steps import STEPS, Options
    for logger in ("absl", "tensorflow"):
        logging.getLogger(logger).setLevel(logging.ERROR)

    name, changes = _preset_and_changes(given)
    folder = given.run or Path("runs") / (given.name or name)
    try:
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
        sys.exit(_about(error, folder))
    except KeyboardInterrupt:
        sys.exit(f"Stopped. A fit in {folder} goes on after its last whole epoch with --resume.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("preset", nargs="?", help="the name of a file in training/presets; not needed with --model")
    parser.add_argument("--data", type=Path, help="a folder of class folders, or an .npz file in Keras' layout")
    parser.add_argument("--run", type=Path, help="the run's folder (runs/NAME, or runs/PRESET)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where bundles are published (models)")
    parser.add_argument("--resume", action="store_true", help="go on with a fit that was interrupted")
    parser.add_argument("--no-examples", action="store_true", help="leave test images out of the report")
    parser.add_argument("--name", help="the bundle's name")
    parser.add_argument("--labels", help="a file with a class's name in each line")
    parser.add_argument("--model", help="a .keras classifier trained elsewhere")
    parser.add_argument("--calibration", type=Path, help="a folder of photos, labelled or not, to quantize with")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the preset, such as recipe.batch_size=32 or recipe.phases.0.epochs=3; give the same "
        "to every step of a run",
    )
    return parser


def _preset_and_changes(given: argparse.Namespace) -> tuple[str, list[str]]:
    """The preset's name and all changes to it, those of the shorter options included."""
    if not given.preset and not given.model:
        sys.exit("Which preset? Name one of training/presets, or give --model FILE.keras to bring a model of your own.")
    short = [f"{field}={_toml(value)}" for field, value in (("name", given.name), ("labels", given.labels)) if value]
    if given.model:
        short += ['network.architecture="file"', f"network.weights={_toml(given.model)}"]
    return given.preset or BROUGHT, short + given.set


def _toml(text: str) -> str:
    """The text as a string of TOML, which JSON's strings are as well."""
    return json.dumps(text, ensure_ascii=False)


def _command(given: argparse.Namespace) -> str:
    """What would do it all again, in the folder that holds the files: where they lie is nobody else's business."""
    parts = ["python", "-m", "training", "all", *([given.preset] if given.preset else [])]
    for option in ("data", "calibration", "model", "labels", "name"):
        value = getattr(given, option)
        if value:
            parts += [f"--{option}", value if option == "name" else Path(value).resolve().name]
    if given.no_examples:
        parts.append("--no-examples")
    for change in given.set:
        parts += ["--set", _without_folder(change)]
    return shlex.join(parts)


def _without_folder(change: str) -> str:
    """The change, with a file's or folder's name but not where it lies on this disk."""
    field, _, value = change.partition("=")
    return f"{field}={Path(value).name}" if Path(value).is_absolute() else change


def _about(error: OSError, folder: Path) -> str:
    """A full disk and its like: what could not be done, and that nothing half done was left in its place."""
    what = error.filename or folder
    reason = error.strerror or str(error)
    return f"{what}: {reason}. Nothing was published; mend that and give the same command again, with --resume."


if __name__ == "__main__":
    main()
