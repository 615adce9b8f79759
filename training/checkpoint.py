"""Checkpoints: all that a fit needs to continue after an epoch as if it had not been interrupted."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import msgspec

from litelens_client.learning.files import write_json
from training.errors import FitError

_STATE = "state.json"


@dataclass(frozen=True)
class Epoch:
    """The measurements of an epoch. Phases are counted from 1, and so are the epochs of each phase."""

    phase: int
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class Checkpoint:
    """The epochs so far, and the files with weights and optimizer state after the last and the phase's best epoch."""

    history: tuple[Epoch, ...]
    last: Path
    best: Path


def save_checkpoint(folder: Path, model: keras.Model, history: tuple[Epoch, ...]) -> None:
    """Write the state after the last epoch; until this is complete, the previous checkpoint remains valid."""
    folder.mkdir(exist_ok=True)
    checkpoint = locate_checkpoint(folder, history)
    model.save_weights(checkpoint.last)
    write_json(folder / _STATE, {"history": [dataclasses.asdict(epoch) for epoch in history]})
    for path in folder.glob("*.weights.h5"):
        if path not in (checkpoint.last, checkpoint.best):
            path.unlink()


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Load the checkpoint in a folder, None if there is none; raises FitError if it is damaged."""
    path = folder / _STATE
    if not path.exists():
        return None
    try:
        history = msgspec.convert(json.loads(path.read_bytes())["history"], tuple[Epoch, ...])
        return locate_checkpoint(folder, history)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FitError(_damaged(path)) from error


def restore_weights(model: keras.Model, weights: Path) -> None:
    """Load a checkpoint's weights into a compiled model; raises FitError if they are damaged."""
    try:
        model.load_weights(weights)
    except Exception as error:  # h5py and Keras raise OSError, KeyError, ValueError and others
        raise FitError(_damaged(weights)) from error


def clear_checkpoint(folder: Path) -> None:
    """Remove the checkpoint: first the state file, without which it is not valid, then the rest."""
    (folder / _STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def best_epoch(history: tuple[Epoch, ...]) -> Epoch:
    """Return the last phase's epoch with the lowest validation loss."""
    return min((epoch for epoch in history if epoch.phase == history[-1].phase), key=lambda epoch: epoch.val_loss)


def locate_checkpoint(folder: Path, history: tuple[Epoch, ...]) -> Checkpoint:
    """Return the checkpoint with this history, of at least one epoch, and the paths of its files."""
    return Checkpoint(history, _weights(folder, history[-1]), _weights(folder, best_epoch(history)))


def _weights(folder: Path, epoch: Epoch) -> Path:
    return folder / f"phase-{epoch.phase}-epoch-{epoch.epoch}.weights.h5"


def _damaged(path: Path) -> str:
    return f"the checkpoint {path} is damaged; remove the folder {path.parent} and start the fit again"
