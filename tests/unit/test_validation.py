import math
import sys
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from litelens.core.validation import explain


class Phase(Struct, forbid_unknown_fields=True):
    epochs: Annotated[int, Meta(ge=1)]
    trains: Literal["all", "head"] = "all"
    rate: Annotated[float, Meta(le=sys.float_info.max)] = 0.1

    def __post_init__(self) -> None:
        if self.trains == "head" and self.epochs > 5:
            raise ValueError("epochs must be at most 5")


class Recipe(Struct, forbid_unknown_fields=True):
    phases: tuple[Phase, ...]
    weight_bits: tuple[Literal[7, 8], ...] = (8,)


def message(**changes: Any) -> str:
    values = {"phases": [{"epochs": 1}], **changes}
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert(values, Recipe)
    return explain(raised.value, Recipe, values)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"phases": [{"epochs": 1}, {"epochs": 0}]}, "phases.1.epochs must be a whole number >= 1, not 0"),
        ({"phases": [{"epochs": 1, "trains": "some"}]}, "phases.0.trains must be one of all, head, not 'some'"),
        ({"phases": [{"epochs": 9, "trains": "head"}]}, "phases.0.epochs must be at most 5"),
        ({"phases": [{}]}, "the field phases.0.epochs is missing"),
        ({"weight_bits": [8, 9]}, "weight_bits.1 must be one of 7, 8, not 9"),
        ({"weight_bits": 8}, "weight_bits must be a list, not 8"),
        ({"weight_bits": [7.5]}, "weight_bits.0 must be one of 7, 8, not 7.5"),
        ({"phases": [{"epochs": 1, "trains": 3}]}, "phases.0.trains must be one of all, head, not 3"),
        ({"phases": [{"epochs": 1, "rate": math.inf}]}, "phases.0.rate must be a finite number, not inf"),
        ({"": ""}, "there is no field "),
        ({"comment": ""}, "there is no field comment"),
    ],
)
def test_a_message_has_the_field_and_what_it_must_be(changes: dict[str, Any], expected: str) -> None:
    assert message(**changes) == expected


def test_values_that_look_like_a_path_do_not_confuse_it() -> None:
    path = " - at `$.phases[7]`"
    assert message(**{path: 1}) == f"there is no field {path}"
    assert message(phases=[{"epochs": 1, "trains": path}]).startswith("phases.0.trains must be one of all, head, not")
