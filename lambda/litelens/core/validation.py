"""Turn msgspec's validation errors into sentences for the person who wrote the file."""

import re
import reprlib
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import inspect

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a set of fields",
}


def explain(error: msgspec.ValidationError, kind: type[msgspec.Struct], values: Any) -> str:
    """Say which field is wrong and what it must be, from an error of `msgspec.convert(values, kind)`.

    "Expected `int` >= 1 - at `$.recipe.phases[0].epochs`" becomes "recipe.phases.0.epochs must be a whole number >= 1,
    not 0". The value is shortened if it is long.
    """
    text, path = _split(str(error))
    field = re.sub(r"\[(\d+)\]", r".\1", path).removeprefix(".")
    if error.__cause__:  # a ValueError of __post_init__, whose message begins with a field of that struct
        return f"{field}.{text}" if field else text
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
        return f"there is no field {_join(field, match[1])}"
    if match := re.fullmatch(r"Object missing required field `(.+)`", text):
        return f"the field {_join(field, match[1])} is missing"
    if text.endswith("out of range"):
        return f"{field} is out of range"
    if options := _options_at(kind, field.split(".")):
        expected = f"one of {', '.join(map(str, options))}"
    elif text.endswith(f"<= {sys.float_info.max}"):
        expected = "a finite number"
    else:
        expected = text.removeprefix("Expected ").partition(", got ")[0].replace(" | ", "` or `")
        expected = re.sub(r"`(\w+)`", lambda match: _TYPES.get(match[1], match[1]), expected)
    if path.endswith("[...]"):  # msgspec does not say which key of a dictionary has the value
        return f"each value in {field.removesuffix('[...]')} must be {expected}"
    return f"{field or 'it'} must be {expected}, not {reprlib.repr(_value_at(values, path))}"


def _split(message: str) -> tuple[str, str]:
    """Split msgspec's message into its text and the path, such as `.golden[0].file`, which is empty for the whole."""
    match = re.fullmatch(r"(.*?) - at `\$([^`]*)`", message, re.DOTALL)
    return (match[1], match[2]) if match else (message, "")


def _join(table: str, field: str) -> str:
    return f"{table}.{field}" if table else field


def _value_at(values: Any, path: str) -> Any:
    while path:
        if path.startswith("["):
            index, _, path = path[1:].partition("]")
            values = values[int(index)]
        else:
            # Names can contain dots, as in files.model.tflite.
            name = next(name for name in values if re.match(rf"\.{re.escape(name)}([.\[]|$)", path))
            values, path = values[name], path[1 + len(name) :]
    return values


def _options_at(kind: type[msgspec.Struct], steps: Sequence[str]) -> Sequence[Any]:
    """Return the values of the field's Literal type; empty if the field at this path has another type."""
    found: Any = inspect.type_info(kind)
    for step in steps:
        if isinstance(found, inspect.VarTupleType):
            found = found.item_type
        else:
            found = next((each.type for each in getattr(found, "fields", ()) if each.encode_name == step), None)
    return found.values if isinstance(found, inspect.LiteralType) else ()
