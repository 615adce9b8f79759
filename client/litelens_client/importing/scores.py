"""Find out what an imported model's scores are: of labels that exclude each other, of two labels, or of any number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from litelens.core.bundle import Output
from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.trial import Tried

_SIGMOID, _SOFTMAX = "LOGISTIC", "SOFTMAX"


@dataclass(frozen=True)
class Scores:
    """The kind of scores in the model's output, and the source of that fact.

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


def find_scores(tried: Tried, multi_label: bool | None, given: Output | None) -> Scores:
    """Return what the model's scores are; `multi_label` and `given` are the options of the command, or None.

    Several sigmoids are those of a multi-label model, because a model with exclusive labels ends in a softmax; but some
    exporters have used sigmoids for these too. Scores that need not add up to 1 are logits unless the model ends in a
    sigmoid, because logits can be from 0 to 1 too. Raises ImportRefused if an option contradicts the model.
    """
    classes, ends_in = tried.graph.logits.shape[1], tried.graph.ends_in
    if ends_in == _SOFTMAX and classes == 1:
        raise ImportRefused("the model ends in a SOFTMAX of a single score, which is always 1; use a sigmoid instead")
    adds_up = tried.output == "probabilities" and ends_in != _SIGMOID and classes > 1
    if multi_label and adds_up:
        raise ImportRefused("the model's scores add up to 1, so its labels exclude each other; leave out --multi-label")
    has_several = ends_in == _SIGMOID and (classes > 1 or bool(tried.metadata.facts.thresholds))
    is_multi_label = has_several if multi_label is None else multi_label
    is_binary = classes == 1 and not is_multi_label
    output = given or tried.output
    _check_given(tried, given)
    return Scores(
        output=output,
        is_binary=is_binary,
        is_multi_label=is_multi_label,
        is_divided=output == "probabilities" and classes > 1 and not (adds_up or is_multi_label),
        source="; ".join(_sources(ends_in, multi_label, given, is_binary=is_binary, is_multi_label=is_multi_label)),
    )


def _check_given(tried: Tried, given: Output | None) -> None:
    ends_in = tried.graph.ends_in
    if given == "logits" and ends_in:
        raise ImportRefused(f"the model ends in {ends_in}, so its scores are no logits; leave out --scores")
    if given == "probabilities" and not tried.is_share:
        raise ImportRefused("the model's scores are not all from 0 to 1, so they are logits; leave out --scores")


def _sources(
    ends_in: str, multi_label: bool | None, given: Output | None, *, is_binary: bool, is_multi_label: bool
) -> Iterator[str]:
    """Yield from where each fact is known, and what to do if it is wrong."""
    if given:
        yield f"--scores {given}"
    elif ends_in:
        yield f"the model ends in {ends_in}"
    elif is_binary or is_multi_label:
        yield "assumed, because the model does not end in a sigmoid; others: --scores probabilities"
    else:
        yield "found by running the model"
    if is_binary:
        yield "if it is the other way round, swap the labels"
    elif multi_label is not None:
        yield "--multi-label" if multi_label else "--no-multi-label"
    elif is_multi_label:
        yield "if the labels exclude each other: --no-multi-label"
