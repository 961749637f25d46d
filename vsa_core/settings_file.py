"""A YAML file of settings, and what is wrong with it: the key, the line, the nearest right one"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vsa_core.errors import ConfigError, meant

# What a value has to be, by how pydantic's name of the error begins.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a group of `key: value` lines",
    "model": "a group of `key: value` lines",
    "finite": "a finite number",
    "date": "a day, as 2026-01-31",
    "path": "a path",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_SHOWN = 60


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as PyYAML has it."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, kind: str, wanted: str = "settings") -> dict[str, Any]:
    """The settings of a file; empty where it holds none.

    Args:
        path: the file.
        kind: what it is, and
        wanted: what it holds, for messages.

    Raises:
        ConfigError: it cannot be read, is not YAML, has a key twice, or holds something else.
    """
    what = f"{kind} file {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is not UTF-8 text: save it as that") from error
    try:
        values = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        mark = getattr(error, "problem_mark", None)
        if mark is None:
            raise ConfigError(f"{what} is not YAML: {error}") from error
        tabbed = "\t" in "".join(text.splitlines()[mark.line : mark.line + 1])
        problem = "a tab: indent with spaces" if tabbed else getattr(error, "problem", None)
        raise ConfigError(f"{what} is not YAML: line {mark.line + 1}: {problem}") from error
    if not isinstance(values, dict | None):
        raise ConfigError(f"{what} holds no {wanted}: write `key: value` lines")
    return values or {}


def said(error: ValidationError, model: type[BaseModel], path: Path | None, kind: str) -> str:
    """What is wrong with settings, in one line: the first problem, and how many there are.

    Args:
        error: of pydantic, of whose words none is left.
        model: that was to be made.
        path: the file that names the line; None where there is none.
        kind: what stands for the file then.
    """
    # A key that is not known says more than the one that is missing in its place.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    place = [str(part) for part in first["loc"] if part != "[key]"]
    line = _line(path, place) if path is not None else None
    where = f"{path or kind}" + (f" line {line}" if line else "")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {_problem(first, model, place)}{more}"


def _problem(first: Mapping[str, Any], model: type[BaseModel], place: list[str]) -> str:
    key, kind, given = ".".join(place), first["type"], first["input"]
    context = first.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}: no setting is named so{_nearest(model, place)}"
    if kind == "invalid_key":
        return f"{key}: no setting is named so"
    if kind == "missing":
        return f"{key}: it is missing"
    if kind in ("enum", "literal_error"):
        names = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{key}: {_shown(given)} is none of {', '.join(names)}{meant(str(given), names)}"
    if kind == "value_error":
        return f"{key}: {context['error']}".removeprefix(": ")
    if kind == "too_short":
        return f"{key}: it is empty"
    for bound, words in _BOUNDS.items():
        if bound in context:
            return f"{key}: {_shown(given)} is not {words} {context[bound]}"
    field = _field(model, place)
    if kind == "string_pattern_mismatch":
        wanted = field.description.partition(";")[0] if field and field.description else "otherwise"
        return f"{key}: {_shown(given)} will not do; it is: {wanted}"
    wanted = _KINDS.get(kind.partition("_")[0], "")
    if not wanted:
        return f"{key}: {_shown(given)}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    if given is None:
        return f"{key}: it is empty, and has to be {wanted}"
    if kind == "string_type" and isinstance(given, bool):
        return f"{key}: YAML reads yes, no, on and off as true or false: put the word in quotes"
    hint = f": write [{given}]" if wanted == "a list" and isinstance(given, str) else ""
    return f"{key}: {_shown(given)} is not {wanted}{hint}"


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _nearest(model: type[BaseModel], place: Sequence[str]) -> str:
    """The nearest name at that place, else the place where that name belongs, else all names."""
    beside = _model_at(model, place[:-1])
    names = list(beside.model_fields) if beside else []
    if hint := meant(place[-1], names):
        return hint
    for elsewhere in _places(model):
        if elsewhere.rpartition(".")[2] == place[-1]:
            return f"; did you mean {elsewhere}?"
    return f"; there are: {', '.join(names)}"


def _places(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        for inner in _models_in(field.annotation):
            yield from _places(inner, f"{above}{name}.")


def _field(model: type[BaseModel], place: Sequence[str]) -> Any:
    found = _model_at(model, place[:-1])
    return found.model_fields.get(place[-1]) if found and place else None


def _model_at(model: type[BaseModel], place: Sequence[str]) -> type[BaseModel] | None:
    """The model whose fields stand at a place; numbers and keys of groups are passed over."""
    found: type[BaseModel] | None = model
    for part in place:
        if found is None:
            return None
        field = found.model_fields.get(part)
        if field is not None:
            found = next(iter(_models_in(field.annotation)), None)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _line(path: Path, place: Sequence[str]) -> int | None:
    """The line of a key, or of the last part of its place that stands in the file."""
    node = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif (
            isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value)
        ):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            return line
    return line
