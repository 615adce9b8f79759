"""Anyone can run the commands that the metrics of the bundled models state."""

import json
import shlex
from pathlib import Path

import pytest
from support import ROOT

from litelens.core.bundle import MANIFEST, METRICS
from training.__main__ import _parser as training_parser
from training.__main__ import _preset_and_changes
from training.preset import PRESETS, load_preset

BUNDLES = [pytest.param(path.parent, id=path.parent.name) for path in sorted((ROOT / "models").glob(f"*/{MANIFEST}"))]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundles_command_uses_a_preset_of_the_repository(bundle: Path) -> None:
    command = shlex.split(json.loads((bundle / METRICS).read_text())["command"])
    assert command[:3] == ["python", "-m", "training"]
    given = training_parser().parse_args(command[3:])
    assert given.model is None, "it needs a file that is not in the repository"
    assert (PRESETS / f"{given.preset}.toml").is_file()
    name, changes = _preset_and_changes(given)
    assert load_preset(name, changes).name == json.loads((bundle / MANIFEST).read_text())["name"]


def test_there_are_bundles() -> None:
    assert BUNDLES
