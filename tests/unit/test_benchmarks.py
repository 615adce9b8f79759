"""Tests of the benchmarks' pages and command. Those that need Keras are in tests/training/test_peers.py."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from benchmarks import __main__, comparison, container, fit, photos, report
from benchmarks.comparison import Accuracy, Timing, better_int8
from benchmarks.peers.process import (
    KERAS,
    LIMITED_OPENVINO,
    LITELENS_LITERT,
    LITELENS_OPENVINO,
    ONNX_INT8,
    ONNX_INT8_REDUCED,
)
from benchmarks.report import Part


def test_the_ratio_compares_within_a_round() -> None:
    quiet, noisy, noisiest = [10.0, 11.0, 30.0], [20.0, 22.0, 21.0], [400.0, 440.0, 420.0]
    reference = [[value / 2 for value in values] for values in (quiet, noisy, noisiest)]
    assert report.ratio([quiet, noisy, noisiest], reference) == 2
    assert report.ratio([[1.0], [9.0], [4.0]], [[1.0], [3.0], [2.0]]) == 2


def test_the_reference_is_onnx_runtimes_better_int8_model() -> None:
    found = [
        accuracy(KERAS, 1.0),
        accuracy(ONNX_INT8, 0.7),
        accuracy(ONNX_INT8_REDUCED, 0.96),
        accuracy(LITELENS_LITERT, 0.97),
    ]
    assert better_int8(found) == ONNX_INT8_REDUCED
    assert better_int8([accuracy(ONNX_INT8, 0.99), accuracy(ONNX_INT8_REDUCED, 0.98)]) == ONNX_INT8


def accuracy(peer: str, agreement: float, top1: float | None = 0.5) -> Accuracy:
    return Accuracy(peer, top1, agreement, 120.0)


def row(peer: str, agreement: float, milliseconds: float, ratio: float, top1: float | None) -> dict[str, Any]:
    invoke, answer = (
        {"median": taken, "min": taken - 1, "max": taken + 1} for taken in (milliseconds, milliseconds + 3)
    )
    timing = Timing(peer, 100.0, 20.0, 3.0, invoke, answer, ratio)
    return asdict(accuracy(peer, agreement, top1)) | asdict(timing)


def results(*, labelled: bool = True) -> dict[str, Any]:
    """Return invented results of the peers."""
    top1 = 0.5 if labelled else None
    network = {"side": 224, "images": "photos", "count": 200, "calibration": 100, "training": 600 if labelled else 0}
    return {
        "peers": {
            "network": network,
            "rounds": 3,
            "left_out": ["tflite-runtime is left out."],
            "rows": [row(KERAS, 1.0, 200, 4.0, top1), row(LITELENS_OPENVINO, 0.97, 50, 1.0, top1)],
        }
    }


def test_the_page_shows_accuracy_with_every_speed() -> None:
    page = comparison.render(results())
    assert f"| {KERAS} | 50.0% | 100.0% | 200 (199 to 201) | 203 (202 to 204) | 3 | 4.00 |" in page
    assert f"| {LITELENS_OPENVINO} | 50.0% | 97.0% | 50 (49 to 51) | 53 (52 to 54) | 3 | 1.00 |" in page
    assert f"| {KERAS} | 100 | 20 | 3 | 123 | 120 |" in page
    assert "tflite-runtime is left out." in page
    assert "a new head fitted to 600 photos" in page


def test_the_page_says_when_classes_are_unknown() -> None:
    page = comparison.render(results(labelled=False))
    assert f"| {KERAS} | not measured | 100.0% |" in page
    assert "200 photos, whose classes are unknown" in page
    assert "new head" not in page


def test_parts_that_are_not_measured_keep_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"), counting_part("second")))
    __main__.main(["--rounds", "1"])
    __main__.main(["--rounds", "2", "--only", "second"])
    written = json.loads((tmp_path / "results.json").read_text())
    assert (written["first"], written["second"]) == ({"rounds": 1}, {"rounds": 2})
    assert written["about"].keys() == {"first", "second"}
    page = (tmp_path / "results.md").read_text()
    assert page.index("## first\n\n1 rounds") < page.index("## second\n\n2 rounds") < page.index("## Machine")
    assert f"- first, second: {written['about']['first']['date']}" in page


def test_a_part_that_needs_a_missing_package_is_left_out_unless_it_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = replace(counting_part("second"), missing=lambda: "Install it.")
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"), lacking))
    __main__.main([])
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {"first", "about"}
    assert "Install it." in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^Install it\.$"):
        __main__.main(["--only", "second"])


def test_all_that_is_missing_is_listed_before_the_other_parts_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = ""

    def measure(options: report.Options) -> dict[str, int]:
        nonlocal listed
        listed = capsys.readouterr().err
        return {"rounds": options.rounds}

    parts = (
        replace(counting_part("first"), measure=measure, left_out=lambda: ["Some peer is left out."]),
        replace(counting_part("second"), missing=lambda: "Install this."),
        replace(counting_part("third"), missing=lambda: "Install that."),
        replace(counting_part("fourth"), missing=lambda: "Install that."),
    )
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", parts)
    __main__.main([])
    assert listed.splitlines() == ["Install this.", "Install that.", "Some peer is left out.", "Measuring first."]


def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: report.Options) -> Any:
        raise report.BenchmarkError("Docker went away.")

    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (replace(counting_part("first"), measure=fail), counting_part("second")))
    with pytest.raises(SystemExit, match=r"^first failed: Docker went away\.$"):
        __main__.main([])
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {"second", "about"}


def test_with_a_bundle_of_your_own_only_the_parts_that_measure_it_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "IS_DEFAULT_BUNDLE", False)
    monkeypatch.setattr(__main__, "FOLDER", tmp_path / "pets")
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"), replace(counting_part("second"), uses_bundle=True)))
    __main__.main([])
    assert json.loads((tmp_path / "pets" / "results.json").read_text()).keys() == {"second", "about"}


def test_a_bundle_that_cannot_be_read_is_reported_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "BUNDLE", tmp_path / "pets")
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"), replace(counting_part("second"), uses_bundle=True)))
    with pytest.raises(SystemExit, match=r"^The bundle cannot be measured: .*pets"):
        __main__.main([])


def test_results_of_other_bundles_have_a_folder_of_their_own() -> None:
    command = [sys.executable, "-c", "from benchmarks.photos import RESULTS; print(RESULTS)"]
    folders = [
        subprocess.run(
            command, env={**os.environ, "LITELENS_BUNDLE": bundle}, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        for bundle in ("models/everyday", str(ROOT / "models" / "everyday"), "models/cifar100-resnet50")
    ]
    assert folders == [
        *[str(ROOT / "benchmarks")] * 2,
        str(ROOT / "build" / "bench" / "results" / "cifar100-resnet50"),
    ]


def test_without_docker_the_container_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert container.missing() == ("To measure the container, install Docker: https://docs.docker.com/engine/install/")


def test_a_bundle_outside_of_models_cannot_be_measured_in_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "BUNDLE", tmp_path / "pets")
    assert container.missing().startswith(f"To measure the container, copy {tmp_path / 'pets'} to models/")


def test_packages_that_the_peers_lack_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("keras", "onnx") else name)
    assert "installs keras, onnx into .venv-train" in comparison.missing()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["avx2", "fma", "avx512f", "avx512_vnni"], "VNNI"),
        (["avx2", "avx_vnni"], "VNNI"),
        (["avx2", "avx512_vnni", "amx_int8"], "AMX"),
        (["avx2", "fma", "avx512f"], "AVX2"),
        (["asimddp"], "Arm"),
        ([], "other"),
    ],
)
def test_cpus_are_told_apart_by_their_instructions_for_int8(flags: list[str], expected: str) -> None:
    assert report.instruction_class({"flags": flags}) == expected


def bundle_results(
    litert: float, openvino: float, limited: float | None = None, instructions: str = "VNNI"
) -> dict[str, Any]:
    """Return invented results of a bundle, with these milliseconds of answers."""
    times = {LITELENS_LITERT: litert, LITELENS_OPENVINO: openvino, LIMITED_OPENVINO["AVX2"].name: limited}
    rows = [row(peer, 1.0, taken - 3, 1.0, None) for peer, taken in times.items() if taken is not None]
    about = {"instructions": instructions, "date": "2026-11-30", "rounds": 4, "images": "photos", "count": 200}
    return {"name": "everyday", "side": 260, "rows": rows, **about}


NEWER, OLDER = "Newer with VNNI", "Older with AVX2"
AVX2_RESULTS = bundle_results(9, 8, instructions="AVX2")


def test_engines_are_recommended_for_each_measured_cpu() -> None:
    page = comparison.render_bundle({"bundle": {NEWER: bundle_results(4, 5), OLDER: AVX2_RESULTS}})
    assert f"### {NEWER}" in page
    assert f"| {NEWER} | 4 | 5 | LiteRT |" in page
    assert f"| {OLDER} | 9 | 8 | OpenVINO |" in page


def test_a_limited_openvino_stands_for_a_cpu_that_was_not_measured() -> None:
    slower = comparison.render_bundle({"bundle": {NEWER: bundle_results(4, 5, limited=9)}})
    assert f"| {NEWER}, limited to AVX2 | more than 4 | 9 | unknown; measure on a CPU with AVX2 only |" in slower
    faster = comparison.render_bundle({"bundle": {NEWER: bundle_results(7, 5, limited=6)}})
    assert f"| {NEWER}, limited to AVX2 | more than 7 | 6 | OpenVINO |" in faster
    with_amx = {"Newest with AMX": bundle_results(7, 5, limited=6, instructions="AMX")}
    assert "| Newest with AMX, limited to AVX2 | more than 7 | 6 | OpenVINO |" in comparison.render_bundle(
        {"bundle": with_amx}
    )
    both = comparison.render_bundle({"bundle": {NEWER: bundle_results(4, 5, limited=9), OLDER: AVX2_RESULTS}})
    assert f"| {OLDER} | 9 | 8 | OpenVINO |" in both
    assert "more than" not in both


def test_of_equally_fast_engines_the_one_with_less_memory_is_recommended() -> None:
    litert, openvino = bundle_results(100, 98)["rows"]
    assert comparison.recommended_engine(litert, {**openvino, "peak_megabytes": 150.0}) == "LiteRT"
    assert comparison.recommended_engine({**litert, "peak_megabytes": 150.0}, openvino) == "OpenVINO"


def test_results_of_other_cpus_are_kept_for_the_same_bundle() -> None:
    vnni, avx2 = {NEWER: bundle_results(4, 5)}, {OLDER: AVX2_RESULTS}
    assert comparison.merge_bundles(vnni, avx2) == vnni | avx2
    newer = {NEWER: bundle_results(3, 5)}
    assert comparison.merge_bundles(vnni | avx2, newer) == newer | avx2
    other = {NEWER: {**bundle_results(1, 2), "name": "pets"}}
    assert comparison.merge_bundles(vnni | avx2, other) == other
    assert comparison.merge_bundles(None, avx2) == avx2


def test_with_json_results_are_printed_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "FOLDER", tmp_path)
    monkeypatch.setattr(__main__, "PARTS", (counting_part("first"),))
    __main__.main(["--rounds", "4", "--json"])
    assert json.loads(capsys.readouterr().out)["first"] == {"rounds": 4}
    assert list(tmp_path.iterdir()) == []


def counting_part(name: str) -> Part:
    def render(values: Mapping[str, Any]) -> str:
        return f"## {name}\n\n{values[name]['rounds']} rounds"

    return Part(name, lambda options: {"rounds": options.rounds}, render)


def test_the_page_follows_from_the_results() -> None:
    results = report.read_results(__main__.FOLDER / "results.json")
    assert (__main__.FOLDER / "results.md").read_text() == report.render(results, __main__.PARTS)


def test_a_missing_data_folder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_DATA", "no/such/folder")
    with pytest.raises(SystemExit, match="LITELENS_DATA names no/such/folder"):
        __main__.main([])


def test_training_steps_ask_for_torch_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fit.missing() == (
        "To measure training steps, install torch: .venv-train/bin/python -m pip install torch==2.13.0"
    )


def test_training_steps_are_shown_with_their_share_of_plain_torch() -> None:
    measured = {
        "preset": "cifar100-cpu",
        "batch": 128,
        "precision": "float32",
        "torch": "2.13.0",
        "rounds": 4,
        "load": 0.1,
        "steps": {"2": 6},
        "rows": [
            {
                "stem_stride": 2,
                "implementation": fit.LITELENS,
                "images_per_second": {"median": 90.0, "min": 80.0, "max": 95.0},
                "ratio": 0.9,
            }
        ],
    }
    about = {"fit": {**report.about(), "flags": ["avx2", "fma"]}}
    page = fit.render({"fit": measured, "about": about})
    assert "| 2 | litelens | 90 (80 to 95) | 90% |" in page
    assert "(avx2, fma)" in page
    assert "4 rounds of 6 steps with stride 2" in page


def test_crops_are_the_same_each_time_and_have_no_classes() -> None:
    first, second = photos.crops(5), photos.crops(5)
    assert first.test.files == second.test.files
    assert len(set(first.test.files)) == 5
    assert not set(first.test.files) & set(first.calibration.files)
    assert (first.test.classes, first.labels, first.training) == (None, None, None)
    assert photos.cats_and_dogs(None, 5).test.files == first.test.files


def test_the_same_number_of_photos_is_taken_of_each_class(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("test", 10)):
        for label in ("cat", "dog"):
            folder = tmp_path / "dogs-vs-cats" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:02}.png").write_bytes(f"{split} {label} {number}".encode())
    dataset = photos.cats_and_dogs(tmp_path, 10)
    assert dataset.labels == ("cat", "dog")
    assert dataset.test.files[:2] == (b"test cat 0", b"test cat 2")
    assert dataset.test.classes is not None
    assert dataset.test.classes.tolist() == [0] * 5 + [1] * 5
    assert dataset.training is not None
    assert len(dataset.training) == 60
    assert set(dataset.calibration.files) <= set(dataset.training.files)
