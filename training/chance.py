"""Warnings about models that the test images do not show to be better than chance."""

from collections.abc import Mapping
from typing import Any

from training.metrics import wilson_interval


def chance_warnings(document: Mapping[str, Any]) -> list[str]:
    """List a warning if the test images do not show that the int8 model is better than chance.

    `document` is the content of metrics.json. Chance is the accuracy of always answering the test images' most
    frequent class; the model is better if the 95% interval of its top-1 accuracy is above that. A model whose accuracy
    is unknown gets no warning.
    """
    top1 = document["metrics"]["int8_top1"]
    images = [sum(row) for row in document["confusion"]]
    if top1 is None or not sum(images):
        return []
    most = max(images)
    label, chance = document["classes"][images.index(most)]["label"], most / sum(images)
    low, high = wilson_interval(top1, sum(images))
    if low > chance:
        return []
    return [
        f"The test images do not show that this model is better than chance: it classifies {top1:.1%} of "
        f"{sum(images):,} correctly (95% interval: {low:.1%} to {high:.1%}); always answering '{label}' would be "
        f"correct for {chance:.1%}."
    ]
