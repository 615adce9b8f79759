"""The commands `aws` and `sam` as AWS declares them, to check the calls that the fake commands record.

The AWS CLI makes most of its commands from botocore's models; the others that this project calls are in a table here.
The SAM CLI declares its commands with click.
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import botocore.session
import click
import jmespath
from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.waiter import WaiterModel
from jmespath.exceptions import JMESPathError
from support import ROOT

NOTHING: frozenset[str] = frozenset()
OUTPUTS = frozenset({"json", "text", "table", "yaml", "yaml-stream", "off"})
# Each takes one value.
GLOBAL_OPTIONS = frozenset({"--output", "--profile", "--query", "--region"})
PAGINATION_OPTIONS = frozenset({"--max-items", "--page-size", "--starting-token"})
# Services for which the AWS CLI has another name than botocore.
SERVICES = {"s3api": "s3", "deploy": "codedeploy"}


@dataclass(frozen=True)
class Command:
    """A command of the AWS CLI: the number of its operands, and its options by the number of their values."""

    operands: int = 0
    flags: frozenset[str] = NOTHING
    values: frozenset[str] = NOTHING
    lists: frozenset[str] = NOTHING
    required: frozenset[str] = NOTHING


# Commands that the AWS CLI adds, with the options that this project uses.
ADDED = {
    "cloudformation deploy": Command(
        flags=frozenset({"--no-fail-on-empty-changeset"}),
        values=frozenset({"--stack-name", "--template-file"}),
        lists=frozenset({"--capabilities", "--parameter-overrides", "--tags"}),
        required=frozenset({"--stack-name", "--template-file"}),
    ),
    "logs tail": Command(1, flags=frozenset({"--follow"}), values=frozenset({"--format", "--since"})),
    "s3 cp": Command(2, flags=frozenset({"--recursive"}), values=frozenset({"--cache-control", "--exclude"})),
    "s3 rb": Command(1, flags=frozenset({"--force"})),
}


@cache
def check_call(call: tuple[str, ...]) -> None:
    """Raise AssertionError if `aws` would refuse the call, or `sam` or `python` one that begins with its name."""
    if call[0] == "sam":
        _check_sam(call[1], call[2:])
    elif call[0] == "python":
        assert (ROOT / call[1]).is_file(), f"{call[1]} does not exist"
    else:
        _check_aws(call)


def _check_sam(name: str, arguments: Sequence[str]) -> None:
    command = importlib.import_module(f"samcli.commands.{name}.command").cli
    context = click.Context(command)
    try:
        options, operands, _ = command.make_parser(context).parse_args(list(arguments))
        for parameter in command.params:
            if parameter.name in options and isinstance(parameter.type, click.Choice):
                parameter.type_cast_value(context, options[parameter.name])
    except click.ClickException as error:
        raise AssertionError(f"sam {name}: {error.format_message()}") from error
    assert not operands, f"sam {name} takes no {operands}"


def _check_aws(call: Sequence[str]) -> None:
    service, name, *arguments = call
    operation = None
    if f"{service} {name}" in ADDED:
        command = ADDED[f"{service} {name}"]
    elif name == "wait":
        operation = _waiter_operation(service, arguments.pop(0))
        command = _command(operation)
    else:
        operation = _operation(service, name)
        command = _command(operation)
    operands, options = _parse(arguments)
    assert len(operands) == command.operands, f"{call} needs {command.operands} operands"
    given = {*options, *(option.replace("--no-", "--", 1) for option in options)}
    assert command.required <= given, f"{call} lacks {command.required - given}"
    for option, values in options.items():
        _check_count(command, option, len(values))
    if operation:
        _check_values(operation, options)
    assert {*options.get("--output", ())} <= OUTPUTS, f"{call} has an unknown --output"
    for query in options.get("--query", ()):
        _check_query(query, operation)


def _parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the operands, which come first, and the values of each option."""
    operands: list[str] = []
    options: dict[str, list[str]] = {}
    words = operands
    for argument in arguments:
        if argument.startswith("--"):
            assert argument not in options, f"{argument} is given twice"
            words = options[argument] = []
        else:
            words.append(argument)
    return operands, options


def _check_count(command: Command, option: str, count: int) -> None:
    if option in command.flags:
        assert count == 0, f"{option} takes no value"
    elif option in command.values | GLOBAL_OPTIONS:
        assert count == 1, f"{option} takes one value"
    else:
        assert option in command.lists, f"there is no option {option}"
        assert count, f"{option} takes values"


@cache
def _service(name: str) -> ServiceModel:
    service: ServiceModel = botocore.session.get_session().get_service_model(SERVICES.get(name, name))
    return service


@cache
def _operation(service: str, name: str) -> OperationModel:
    assert service not in SERVICES.values(), f"aws {service} is another command"
    model = _service(service)
    names = {xform_name(each, "-"): each for each in model.operation_names}
    assert name in names, f"aws {service} has no operation {name}"
    return model.operation_model(names[name])


def _waiter_operation(service: str, name: str) -> OperationModel:
    """Return the operation that a waiter repeats."""
    waiters = WaiterModel(Loader().load_service_model(_service(service).service_name, "waiters-2"))
    names = {xform_name(each, "-"): each for each in waiters.waiter_names}
    assert name in names, f"aws {service} wait has no {name}"
    return _service(service).operation_model(waiters.get_waiter(names[name]).operation)


def _members(operation: OperationModel) -> dict[str, Shape]:
    """Return the parameters of an operation by their options."""
    shape = operation.input_shape
    return {f"--{xform_name(name, '-')}": member for name, member in shape.members.items()} if shape else {}


def _command(operation: OperationModel) -> Command:
    members = _members(operation)
    flags = {option for option, shape in members.items() if shape.type_name == "boolean"}
    lists = {option for option, shape in members.items() if shape.type_name in ("list", "map")}
    values = members.keys() - flags - lists
    required = operation.input_shape.required_members if operation.input_shape else []
    paginators = Loader().load_service_model(operation.service_model.service_name, "paginators-1")["pagination"]
    return Command(
        flags=frozenset(flags | {option.replace("--", "--no-", 1) for option in flags}),
        values=frozenset(values | PAGINATION_OPTIONS if operation.name in paginators else values),
        lists=frozenset(lists),
        required=frozenset(f"--{xform_name(name, '-')}" for name in required),
    )


def _check_values(operation: OperationModel, options: dict[str, list[str]]) -> None:
    """Check values that must be numbers or some of several words, and the names of members in a structure."""
    for option, shape in _members(operation).items():
        for text in options.get(option, ()):
            each = shape.member if isinstance(shape, ListShape) else shape
            if allowed := each.metadata.get("enum"):
                assert text in allowed, f"{option} cannot be {text}"
            elif each.type_name in ("integer", "long"):
                assert text.isdecimal(), f"{option} cannot be {text}"
            elif isinstance(each, StructureShape) and (named := re.match(r"(\w+)=", text)):
                assert named[1] in each.members, f"{option} has no {named[1]}"


def _check_query(query: str, operation: OperationModel | None) -> None:
    """Check that a query has no mistake, and only names of members of the operation's answer."""
    try:
        parsed = jmespath.compile(query).parsed
    except JMESPathError as error:
        raise AssertionError(f"{query} is no query") from error
    assert operation, f"this command prints no JSON for {query}"
    unknown = {*_fields(parsed)} - {*_names(operation.output_shape, ())}
    assert not unknown, f"{operation.name} returns no {unknown}"


def _fields(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if node["type"] == "field":
            yield node["value"]
        for child in node["children"]:
            yield from _fields(child)


def _names(shape: Shape | None, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of all members in a shape; shapes can contain themselves."""
    if shape is None or shape.name in above:
        return
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            yield name
            yield from _names(member, (*above, shape.name))
    elif isinstance(shape, ListShape):
        yield from _names(shape.member, (*above, shape.name))
