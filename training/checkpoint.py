"""Checkpoints: after each epoch all that fitting needs to go on as if it had never stopped."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras

from training.errors import FitError
from training.run import write_json

_STATE = "state.json"


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; phases and epochs are counted from 1, epochs anew in each phase."""

    phase: int
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class Checkpoint:
    """The epochs so far, and the weights, with the optimizer's, after the last and the best one of its phase."""

    history: tuple[Epoch, ...]
    last: Path
    best: Path


def save_checkpoint(folder: Path, model: keras.Model, history: tuple[Epoch, ...]) -> None:
    """Write the state after the history's last epoch; until that is done the one before it stands."""
    folder.mkdir(exist_ok=True)
    checkpoint = checkpoint_in(folder, history)
    model.save_weights(checkpoint.last)
    write_json(folder / _STATE, {"history": [dataclasses.asdict(epoch) for epoch in history]})
    for path in folder.glob("*.weights.h5"):
        if path not in (checkpoint.last, checkpoint.best):
            path.unlink()


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """What `save_checkpoint` wrote, or None when there is nothing; raises FitError when it is damaged."""
    path = folder / _STATE
    if not path.exists():
        return None
    try:
        history = tuple(Epoch(**epoch) for epoch in json.loads(path.read_bytes())["history"])
        return checkpoint_in(folder, history)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FitError(_damaged(path)) from error


def restore(model: keras.Model, weights: Path) -> None:
    """Load a checkpoint's weights into a compiled model; raises FitError when they are damaged."""
    try:
        model.load_weights(weights)
    except Exception as error:  # h5py and Keras raise OSError, KeyError, ValueError and others
        raise FitError(_damaged(weights)) from error


def clear_checkpoint(folder: Path) -> None:
    """Remove it, beginning with what makes it one."""
    (folder / _STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def best_epoch(history: tuple[Epoch, ...]) -> Epoch:
    """The one with the lowest validation loss, of the last phase."""
    return min((epoch for epoch in history if epoch.phase == history[-1].phase), key=lambda epoch: epoch.val_loss)


def checkpoint_in(folder: Path, history: tuple[Epoch, ...]) -> Checkpoint:
    """Where the checkpoint with this history, of one epoch or more, is in the folder."""
    return Checkpoint(history, _weights(folder, history[-1]), _weights(folder, best_epoch(history)))


def _weights(folder: Path, epoch: Epoch) -> Path:
    return folder / f"phase-{epoch.phase}-epoch-{epoch.epoch}.weights.h5"


def _damaged(path: Path) -> str:
    return f"the checkpoint {path} is damaged; remove the folder {path.parent} and fit anew"
