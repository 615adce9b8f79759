import json
from pathlib import Path

import pytest
from support import ROCKET

from client.__main__ import main, table
from litelens.classifier import Candidate, Prediction, Timing


def prediction(*, uncertain: bool) -> Prediction:
    candidates = (Candidate("rocket", 69, 0.875), Candidate("pickup_truck", 58, 0.0625))
    return Prediction(candidates, uncertain, "JPEG", 640, 427, Timing(1.0, 2.0, 3.0))


def test_the_table_has_a_line_for_each_label() -> None:
    assert table(prediction(uncertain=False)) == "rocket         87.5%\npickup_truck    6.2%"


def test_the_table_says_when_the_best_is_uncertain() -> None:
    assert table(prediction(uncertain=True)).endswith("uncertain.")


def test_a_photo_gets_five_labels(capsys: pytest.CaptureFixture[str]) -> None:
    main(["classify", str(ROCKET)])
    assert capsys.readouterr().out.count("%") == 5


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    main(["classify", str(ROCKET), "--top-k", "2", "--json"])
    assert len(json.loads(capsys.readouterr().out)["candidates"]) == 2


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nothing.jpg cannot be read: No such file or directory"):
        main(["classify", str(tmp_path / "nothing.jpg")])


def test_a_file_that_is_no_image_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(SystemExit, match="not an image"):
        main(["classify", str(tmp_path / "text.jpg")])


def test_a_missing_bundle_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELENS_BUNDLE")
    with pytest.raises(SystemExit, match="LITELENS_BUNDLE is not set"):
        main(["classify", str(ROCKET)])
