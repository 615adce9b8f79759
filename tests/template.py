"""The templates as CloudFormation evaluates them: SAM's own transform, then the intrinsic functions."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from support import ROOT

TEMPLATE = ROOT / "template.yaml"
PSEUDO_PARAMETERS = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::StackId": (
        "arn:aws:cloudformation:eu-central-1:123456789012:stack/litelens/0a1b2c3d-4e5f-6789-abcd-ef0123456789"
    ),
    "AWS::StackName": "litelens",
    "AWS::URLSuffix": "amazonaws.com",
}
NOTHING = object()


@dataclass(frozen=True)
class GatewayResponse:
    """One of API Gateway's own responses: headers as expressions, and the body with filled-in variables."""

    status: int
    headers: Mapping[str, str]
    body: Any
    variables: frozenset[str]


def synthesize(**parameters: str) -> dict[str, Any]:
    """Return the stack's resources and outputs. Parameters that are not given have their defaults.

    A reference to a resource becomes its name, a reference to an attribute becomes `Name.Attribute`.
    """
    return synthesize_template(TEMPLATE, parameters)


def synthesize_nested(application: str, **parameters: str) -> dict[str, Any]:
    """Return the resources and outputs of a nested application, with the parameters that the stack passes to it."""
    nested = synthesize(**parameters)["Resources"][application]["Properties"]
    return synthesize_template(ROOT / nested["TemplateURL"], nested["Parameters"])


def page_headers(**parameters: str) -> dict[str, str]:
    """Return the headers that CloudFront adds to the page; their names are in lower case."""
    made = synthesize_nested("Site", **parameters, Page="true")["Resources"]["PageHeaders"]["Properties"]
    policy = made["ResponseHeadersPolicyConfig"]
    security, custom = policy["SecurityHeadersConfig"], policy["CustomHeadersConfig"]["Items"]
    assert all(header["Override"] is True for header in [*security.values(), *custom])
    values = {
        "ContentSecurityPolicy": lambda header: ("content-security-policy", header["ContentSecurityPolicy"]),
        "ContentTypeOptions": lambda _: ("x-content-type-options", "nosniff"),
        "FrameOptions": lambda header: ("x-frame-options", header["FrameOption"]),
        "ReferrerPolicy": lambda header: ("referrer-policy", header["ReferrerPolicy"]),
        "StrictTransportSecurity": lambda header: (
            "strict-transport-security",
            f"max-age={header['AccessControlMaxAgeSec']}",
        ),
    }
    return {
        **dict(values[name](header) for name, header in security.items()),
        **{header["Header"].lower(): header["Value"] for header in custom},
    }


def parameters() -> dict[str, dict[str, Any]]:
    """Return the declaration of each parameter of the stack."""
    return dict(_transformed(TEMPLATE, ())["Parameters"])


def gateway_responses(**parameters: str) -> dict[str, GatewayResponse]:
    """Return API Gateway's own responses by type."""
    body = synthesize(**parameters)["Resources"]["Api"]["Properties"]["Body"]
    return {name: _response(made) for name, made in body["x-amazon-apigateway-gateway-responses"].items()}


def gateway_codes() -> dict[str, int]:
    """Return the problem codes of API Gateway's own responses, with their statuses."""
    return {response.body["code"]: response.status for response in gateway_responses().values()}


def _response(made: dict[str, Any]) -> GatewayResponse:
    ((content_type, template),) = made["responseTemplates"].items()
    assert content_type == "application/json"
    prefix = "gatewayresponse.header."
    return GatewayResponse(
        status=int(made["statusCode"]),
        headers={name.removeprefix(prefix): value for name, value in made["responseParameters"].items()},
        body=json.loads(re.sub(r"\$[\w.]+", "filled", template)),
        variables=frozenset(re.findall(r"\$[\w.]+", template)),
    )


def synthesize_template(template: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resources and outputs of any template with these parameters."""
    document = _transformed(template, tuple(parameters.items()))
    assert parameters.keys() <= document["Parameters"].keys(), "CloudFormation refuses parameters that it does not know"
    for name, value in parameters.items():
        _check_value(name, str(value), document["Parameters"][name])
    values = {
        name: parameters[name] if name in parameters else declared["Default"]
        for name, declared in document["Parameters"].items()
    }
    for name, declared in document["Parameters"].items():
        if declared["Type"] == "CommaDelimitedList":
            values[name] = values[name].split(",")
    evaluate = _Evaluator(document, values | PSEUDO_PARAMETERS)
    for name, rule in document.get("Rules", {}).items():
        if evaluate(rule["RuleCondition"]):
            assert all(evaluate(made["Assert"]) for made in rule["Assertions"]), (
                f"CloudFormation refuses by rule {name}"
            )
    return {part: evaluate(evaluate.present(document.get(part, {}))) for part in ("Resources", "Outputs")}


def dependencies(template: Path, parameters: Mapping[str, str]) -> dict[str, set[str]]:
    """Return for each resource that exists with these parameters those that CloudFormation must create before it.

    Raises AssertionError if one refers to a resource that is neither declared nor created.
    """
    made = synthesize_template(template, parameters)["Resources"].keys()
    document = _transformed(template, tuple(parameters.items()))
    values = {name: parameters.get(name, declared.get("Default")) for name, declared in document["Parameters"].items()}
    values |= {name: text.split(",") for name, text in values.items() if _is_list(document, name)}
    choose = _Evaluator(document, values | PSEUDO_PARAMETERS).chosen
    declared = document["Parameters"].keys() | PSEUDO_PARAMETERS.keys() | {"AWS::NoValue"}
    graph = {}
    for name in made:
        found = set(_references(choose(document["Resources"][name]))) - declared
        assert found <= made, f"{name} refers to {found - made}, which this stack does not have"
        graph[name] = found
    return graph


def _is_list(document: Mapping[str, Any], parameter: str) -> bool:
    return bool(document["Parameters"][parameter]["Type"] == "CommaDelimitedList")


def _references(node: Any) -> Iterator[str]:
    """Yield the names in Ref, Fn::GetAtt, Fn::Sub and DependsOn."""
    if isinstance(node, list):
        for part in node:
            yield from _references(part)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0] if isinstance(value, list) else value.split(".")[0]
            elif key == "DependsOn":
                yield from [value] if isinstance(value, str) else value
            elif key == "Fn::Sub":
                text, given = value if isinstance(value, list) else (value, {})
                yield from {name.split(".")[0] for name in re.findall(r"\$\{([\w.:]+)\}", text)} - given.keys()
                yield from _references(given)
            else:
                yield from _references(value)


def _check_value(name: str, text: str, declared: Mapping[str, Any]) -> None:
    """Refuse what CloudFormation refuses. A nested stack also gets values that are only known during deployment."""
    if "AllowedValues" in declared:
        assert text in {str(value) for value in declared["AllowedValues"]}, f"{name} cannot be {text}"
    for part in text.split(",") if declared["Type"] == "CommaDelimitedList" else [text]:
        assert re.fullmatch(declared.get("AllowedPattern", ".*"), part), f"{name} cannot be {text}"
    if declared["Type"] == "Number":
        number = float(text)
        assert declared.get("MinValue", number) <= number <= declared.get("MaxValue", number), (
            f"{name} cannot be {text}"
        )


@cache
def _transformed(template: Path, parameters: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    document = yaml_parse(template.read_text())
    if "Transform" not in document:
        return dict(document)
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # The transform needs an image here, which `sam build` would fill in.
            resource["Properties"]["ImageUri"] = "registry.example/litelens:latest"
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=PSEUDO_PARAMETERS["AWS::Region"]))
    return dict(translator.translate(document, dict(parameters)))


def _attribute(path: list[str]) -> str:
    """Return a name for an attribute; for the URL of a function, one of its form."""
    name = ".".join(path)
    return f"https://{path[0]}.lambda-url.eu-central-1.on.aws/" if path[-1] == "FunctionUrl" else name


class _Evaluator:
    """The intrinsic functions that the templates use; a KeyError names any other."""

    def __init__(self, document: dict[str, Any], values: dict[str, Any]) -> None:
        self._conditions = document.get("Conditions", {})
        self._mappings = document.get("Mappings", {})
        self._values = values
        self._functions = {
            "Ref": self._reference,
            "Fn::Equals": lambda pair: str(self(pair[0])) == str(self(pair[1])),
            "Fn::Not": lambda items: not self(items[0]),
            "Fn::Or": lambda items: any(self(item) for item in items),
            "Fn::And": lambda items: all(self(item) for item in items),
            "Fn::If": self._choose,
            "Fn::GetAtt": _attribute,
            "Fn::Sub": self._substitute,
            "Fn::Join": lambda pair: pair[0].join(self(pair[1])),
            "Fn::Split": lambda pair: self(pair[1]).split(pair[0]),
            "Fn::FindInMap": self._look_up,
            "Fn::Select": lambda pair: self(pair[1])[int(pair[0])],
        }

    def __call__(self, node: Any) -> Any:
        """Evaluate a node. Values that evaluate to AWS::NoValue are left out."""
        if isinstance(node, list):
            return [made for made in map(self, node) if made is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1 and ((name := next(iter(node))) == "Ref" or name.startswith("Fn::")):
            return self._functions[name](node[name])
        return {key: made for key, value in node.items() if (made := self(value)) is not NOTHING}

    def chosen(self, node: Any) -> Any:
        """Return a node with the branch of each Fn::If that applies, and all other functions as they are."""
        if isinstance(node, list):
            return [self.chosen(part) for part in node]
        if not isinstance(node, dict):
            return node
        if node.keys() == {"Fn::If"}:
            condition, yes, no = node["Fn::If"]
            return self.chosen(yes if self(self._conditions[condition]) else no)
        return {key: self.chosen(value) for key, value in node.items()}

    def present(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        """Return the resources or outputs without a condition, or with a true one."""
        return {name: made for name, made in declared.items() if self._holds(made)}

    def _holds(self, made: Mapping[str, Any]) -> bool:
        return "Condition" not in made or bool(self(self._conditions[made["Condition"]]))

    def _reference(self, name: str) -> Any:
        return NOTHING if name == "AWS::NoValue" else self._values.get(name, name)

    def _choose(self, branches: list[Any]) -> Any:
        return self(branches[1] if self(self._conditions[branches[0]]) else branches[2])

    def _look_up(self, path: list[Any]) -> Any:
        mapping, first, second = (str(self(part)) for part in path)
        return self._mappings[mapping][first][second]

    def _substitute(self, argument: Any) -> str:
        text, given = argument if isinstance(argument, list) else (argument, {})
        own = {name: self(value) for name, value in given.items()}
        return re.sub(r"\$\{([\w.:]+)\}", lambda found: str(own.get(found[1], self._reference(found[1]))), text)
