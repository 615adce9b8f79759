"""`litelens learn`: learn a classifier from photos in class folders or in a table of labels, and write its bundle."""

import json
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litelens.core.bundle import REPORT, Bundle
from litelens.core.errors import BundleError
from litelens_client.learning.embeddings import default_cache
from litelens_client.learning.errors import DatasetError, TrainingError
from litelens_client.learning.labelled_photos import is_label_table
from litelens_client.learning.learn import MIN_FAMILIAR, Learned, check_name, learn, load_base
from litelens_client.learning.learn_labels import LearnedLabels, learn_labels
from litelens_client.learning.learned_bundle import check_target, write_learned_bundle
from litelens_client.learning.metrics import chance_warnings
from litelens_client.learning.report import accuracy_interval, is_cross_validated, is_multi_label, list_confusions
from litelens_client.output import counted, printable, write_output
from litelens_client.settings import bundle_folder, models_folder

# The number of confusions, photos and files that are printed; the report has more.
_SHOWN = 5

# If a class has fewer photos, the summary warns that the figures are not reliable.
_FEW = 10


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; ends the process if nothing can be learned from the photos."""
    started = time.monotonic()
    target = models_folder() / arguments.name
    try:
        check_name(arguments.name)
        check_target(target)
        base = load_base(bundle_folder(arguments.base))
        learned = _learn(arguments.photos, base, multi_label=arguments.multi_label or is_label_table(arguments.photos))
        document = write_learned_bundle(learned, target, _command(arguments))
    except (BundleError, TrainingError) as error:
        sys.exit(printable(str(error)))
    except OSError as error:
        sys.exit(printable(f"{target} cannot be written: {error.strerror or error}"))
    lines = [json.dumps(document)] if arguments.json else summary(document, target, time.monotonic() - started)
    return 0 if write_output(f"{printable(line)}\n" for line in lines) else 1


def _learn(photos: Path, base: Bundle, *, multi_label: bool) -> Learned | LearnedLabels:
    try:
        with default_cache() as cache:
            return learn_labels(photos, base, cache) if multi_label else learn(photos, base, cache)
    except OSError as error:
        raise DatasetError(f"{error.filename or photos} cannot be read: {error.strerror or error}") from error


def summary(document: Mapping[str, Any], target: Path, seconds: float) -> list[str]:
    """Return the lines that `litelens learn` prints: the accuracy, the photos to check, and how to use the bundle."""
    return [
        *(_label_scores(document) if is_multi_label(document) else _accuracy(document)),
        *_confusions(document),
        *_photos_to_check(document),
        *_unreadable(document),
        "",
        f"{target} was written in {seconds:.1f} s. Its report: {target / REPORT}",
        f"Try it:      litelens classify --model {target.name} photo.jpg",
        f"Serve it:    make run BUNDLE={target}  (or litelens serve --model {target.name})",
        f"Deploy it:   set Model={target.name} in samconfig.toml, then make deploy ENV=dev",
    ]


def _label_scores(document: Mapping[str, Any]) -> list[str]:
    """Return the lines about labels that do not exclude each other."""
    metrics, rows, photos = document["metrics"], document["classes"], document["recipe"]["photos"]
    counts = document["distribution"]["train"]
    named = [f"{row['label']} {count}" for row, count in zip(rows, counts, strict=True)]
    how = "by cross-validation" if is_cross_validated(document) else f"on {metrics['test_images']:,} test photos"
    tested = sorted((row for row in rows if row["images"]), key=lambda row: row["f1"])
    weakest = [f"{row['label']} (F1 {row['f1']:.1%})" for row in tested]
    lines = [
        f"{counted(len(rows), 'label')}, {counted(photos, 'photo')} ({_shorten(named)}), {sum(counts) / photos:.1f} "
        "labels on a photo",
        f"Precision:   {_percent(metrics['mean_average_precision'])} mean average precision {how}",
        f"All right:   all labels of {metrics['exact_match']:.1%} of photos; mean F1 {_percent(metrics['mean_f1'])}",
        f"Uncertain:   {1 - metrics['answered_share']:.1%} of the photos have no label above its threshold",
    ]
    if weakest:
        lines.append(f"Weakest:     {_shorten(weakest)}")
    if sum(counts) == photos:
        lines.append(
            "One label:   every photo has one; if they exclude each other, use class folders without --multi-label"
        )
    return lines + _few_photos(document, "label")


def _shorten(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _few_photos(document: Mapping[str, Any], noun: str) -> list[str]:
    """Return the lines that warn of too few photos."""
    lines = []
    if (fewest := min(document["recipe"]["distinct_photos"])) < _FEW:
        lines.append(
            f"Few photos:  the smallest {noun} has {fewest} different ones, too few to rely on these figures; use ten "
            "or more, better forty"
        )
    if not document["recipe"]["references"]:
        lines.append(f"Unfamiliar:  photos of other things are recognized only with {MIN_FAMILIAR} different photos")
    return lines


def _accuracy(document: Mapping[str, Any]) -> list[str]:
    metrics, labels = document["metrics"], [row["label"] for row in document["classes"]]
    counts = document["distribution"]["train"]
    named = _shorten([f"{label} {count}" for label, count in zip(labels, counts, strict=True)])
    low, high = accuracy_interval(document)
    photos = "photos" if is_cross_validated(document) else "test photos"
    how = "by cross-validation" if is_cross_validated(document) else f"on {metrics['test_images']:,} test photos"
    lines = [
        f"{len(labels)} classes, {counted(sum(counts), 'photo')} ({named})",
        f"Accuracy:    {metrics['int8_top1']:.1%} {how} (95% interval: {low:.1%} to {high:.1%})",
        f"Uncertain:   {1 - metrics['answered_share']:.1%} of the {photos} have a confidence below "
        f"{metrics['threshold']:.2f}",
    ]
    lines += _few_photos(document, "class")
    if several := document["review"]["in_several_classes"]:
        are = "photo is" if several == 1 else "photos are"
        lines.append(
            f"Several:     {several:,} {are} in several class folders; if a photo can have several labels, add "
            "--multi-label"
        )
    return lines + [f"Warning:     {warning}" for warning in chance_warnings(document)]


def _confusions(document: Mapping[str, Any]) -> list[str]:
    if not document["confusion"]:
        return []
    labels = [row["label"] for row in document["classes"]]
    found = list_confusions(np.array(document["confusion"], np.int64), labels)[:_SHOWN]
    return _list("Confuses:", [f"{each.truth} with {each.predicted} ({each.images})" for each in found])


def _photos_to_check(document: Mapping[str, Any]) -> list[str]:
    review = document["review"]
    misplaced = [
        f"{row['file']} looks like {row['looks_like']} ({row['confidence']:.0%})" for row in review["misplaced_listed"]
    ]
    duplicates = [
        f"{row['second']} is {'' if row['exact'] else 'nearly '}the same as {row['first']}"
        for row in review["duplicates"]
    ]
    in_both = [f"{name} is also a training photo, or nearly the same as one" for name in document["duplicates"]]
    return [
        *_list("Misplaced?", misplaced, review["misplaced"]),
        *_list("Duplicates:", duplicates, review["duplicate_pairs"]),
        *_list("Not tested:", in_both),
    ]


def _unreadable(document: Mapping[str, Any]) -> list[str]:
    skipped = document["skipped"]
    return _list("Unreadable:", [f"{row['file']}: {row['reason']}" for row in skipped["listed"]], skipped["images"])


def _list(title: str, items: Sequence[str], total: int | None = None) -> list[str]:
    """Return the first items, one a line, with a title before the first and the number of others after the last."""
    total = len(items) if total is None else total
    lines = [f"{title if at == 0 else '':12} {item}" for at, item in enumerate(items[:_SHOWN])]
    return lines + ([f"{'':12} ... and {total - _SHOWN} more, in the report"] if total > _SHOWN else [])


def _command(arguments: Namespace) -> str:
    """Return the command that repeats this run, with the folder's name instead of its path on this disk."""
    base = Path(arguments.base).name
    command = ["litelens", "learn", arguments.photos.resolve().name, "--name", arguments.name, "--base", base]
    return printable(shlex.join([*command, "--multi-label"] if arguments.multi_label else command))
