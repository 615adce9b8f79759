"""Find out what an imported model's scores are: of labels that exclude each other, of two labels, or of any number."""

from collections.abc import Sequence
from dataclasses import dataclass

from litelens.core.bundle import Output
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.trial import Tried

_SIGMOID, _SOFTMAX = "LOGISTIC", "SOFTMAX"


@dataclass(frozen=True)
class Scores:
    """What the output has, and from where that is known.

    A binary model has a single score for two labels. In a multi-label model, a photo can have any number of labels.
    """

    output: Output
    is_binary: bool
    is_multi_label: bool
    is_divided: bool
    source: str

    def describe(self, labels: Sequence[str]) -> str:
        """Return what the scores are as text."""
        if self.is_binary:
            what = "probability" if self.output == "probabilities" else "logit"
            return f"one, the {what} of {labels[1]}; the rest is {labels[0]}"
        if self.is_multi_label:
            return f"{self.output} of labels that a photo can have together"
        return "probabilities of independent classes, divided by their sum" if self.is_divided else self.output


def find_scores(tried: Tried, multi_label: bool | None) -> Scores:
    """Return what the model's scores are; `multi_label` is the option of the command, or None.

    Several sigmoids are those of a multi-label model, because a model with exclusive labels ends in a softmax; but some
    exporters have used sigmoids for these too. Raises ImportRefused if the option contradicts the model.
    """
    classes, ends_in = tried.graph.logits.shape[1], tried.graph.ends_in
    if ends_in == _SOFTMAX and classes == 1:
        raise ImportRefused("the model ends in a SOFTMAX of a single score, which is always 1; use a sigmoid instead")
    adds_up = tried.output == "probabilities" and ends_in != _SIGMOID and classes > 1
    if multi_label and adds_up:
        raise ImportRefused("the model's scores add up to 1, so its labels exclude each other; leave out --multi-label")
    is_multi_label = (ends_in == _SIGMOID and classes > 1) if multi_label is None else multi_label
    is_binary = classes == 1 and not is_multi_label
    # Sigmoids need not be the last operator, so the values count too.
    output: Output = "probabilities" if tried.is_share and (is_binary or is_multi_label) else tried.output
    return Scores(
        output=output,
        is_binary=is_binary,
        is_multi_label=is_multi_label,
        is_divided=ends_in == _SIGMOID and classes > 1 and not is_multi_label,
        source=_source(ends_in, multi_label, is_binary=is_binary, is_multi_label=is_multi_label),
    )


def _source(ends_in: str, multi_label: bool | None, *, is_binary: bool, is_multi_label: bool) -> str:
    found = f"the model ends in {ends_in}" if ends_in else "found by running the model"
    if is_binary:
        return f"{found}; if it is the other way round, swap the labels"
    if multi_label is not None:
        return "--multi-label" if multi_label else "--no-multi-label"
    return f"{found}; if the labels exclude each other: --no-multi-label" if is_multi_label else found
