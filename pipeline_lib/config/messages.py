"""Error messages about a config: one line that names the key and suggests the closest known name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


def check_name(key: str, name: str, known: Sequence[str]) -> None:
    """Check that a name is one of the known ones.

    Raises:
        ValueError: names the key and suggests the closest known name.
    """
    if not known:
        raise ValueError(f"`{key}` names `{name}`, but there are no valid names here; remove it")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"`{key}` names `{name}`, which is not one of {', '.join(known)}{hint}")


def describe(problem: dict[str, Any], schema: dict[str, Any]) -> str:
    """Format one pydantic error as one line; `schema` is the JSON schema of the whole config."""
    steps = [str(step) for step in problem["loc"]]
    place = _keys(steps, schema)
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(place[:-1], schema)
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.0)
        return f"unknown key `{key}`; did you mean `{near[0]}`?" if near else f"unknown key `{key}`; remove it"
    if problem["type"] == "union_tag_not_found":
        key, problem = f"{key}.kind", problem | {"type": "missing"}
    if problem["type"] == "union_tag_invalid":
        kinds = _kinds(_nodes(place, schema))
        found = problem["ctx"]["tag"]
        near = difflib.get_close_matches(found, kinds, n=1, cutoff=0.0)[0]
        return f"`{key}`: `{found}` is not one of {', '.join(kinds)}; did you mean `{near}`?"
    if problem["type"] == "missing":
        return f"`{key}` is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return message
    found = problem.get("input")
    return f"`{key}`: {message}" + (f", found {found!r}" if isinstance(found, str | int | float | bool) else "")


def _keys(steps: list[str], schema: dict[str, Any]) -> list[str]:
    """Return the steps of an error's place that are keys of the file: after a union's key comes the kind chosen."""
    keys: list[str] = []
    kinds: list[str] = []  # of the section at the keys so far, until one has been named
    for step in steps:
        if step in kinds:
            kinds = []
        else:
            keys.append(step)
            kinds = _kinds(_nodes(keys, schema))
    return keys


def _kinds(nodes: list[dict[str, Any]]) -> list[str]:
    options = (option for node in nodes for option in (node, *node.get("anyOf", ())))
    return [kind for option in options for kind in option.get("discriminator", {}).get("mapping", ())]


def _known_keys(place: list[str], schema: dict[str, Any]) -> list[str]:
    """Return the keys of the section at `place`."""
    sections = [section for node in _nodes(place, schema) for section in _alternatives(node, schema)]
    return sorted({key for section in sections for key in section.get("properties", {})})


def _nodes(place: list[str], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the JSON schema has at `place`, of each alternative on the way to it."""
    nodes = [schema]
    for step in place:
        sections = [section for node in nodes for section in _alternatives(node, schema)]
        nodes = [section["properties"][step] for section in sections if step in section.get("properties", {})]
        nodes = nodes or [inner for section in sections if (inner := _inner(section, step))]
    return nodes


def _inner(node: dict[str, Any], step: str) -> Any:
    """Return the node of the items of a list, or of the values of a dictionary."""
    return node.get("items" if step.isdigit() else "additionalProperties")


def _alternatives(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return [schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]]
    options = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
    return [found for option in options for found in _alternatives(option, schema)] if options else [node]
