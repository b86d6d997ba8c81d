"""Error messages about a config: one line that names the key and suggests the closest known name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

#: Backend, reader and region names, which pydantic inserts into an error's location after the section's key.
KINDS = {
    "region": ("part", "box"),
    "editor": ("latent-regression", "poisson", "inpainting"),
    "data": ("avatars", "folder", "celeba", "celeba-hq", "ffhq", "class-folders", "huggingface"),
    "selector": ("trained", "backbone", "onnx", "transformers"),
    "referee": ("trained", "backbone", "onnx", "transformers"),
    "parts": ("trained", "onnx", "transformers"),
}


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
    # after a union's key comes the kind that was chosen, which is no key of the file
    place = [step for before, step in zip(["", *steps], steps, strict=False) if step not in KINDS.get(before, ())]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(place[:-1], schema)
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.0)
        return f"unknown key `{key}`; did you mean `{near[0]}`?" if near else f"unknown key `{key}`; remove it"
    if problem["type"] == "union_tag_not_found":
        key, problem = f"{key}.kind", problem | {"type": "missing"}
    if problem["type"] == "union_tag_invalid":
        kinds = KINDS[place[-1]]
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


def _known_keys(place: list[str], schema: dict[str, Any]) -> list[str]:
    """Return the keys of the section at `place` by following the JSON schema through lists and unions."""
    nodes = [schema]
    for step in place:
        following = []
        for node in nodes:
            if step in node.get("properties", {}):
                following += _alternatives(node["properties"][step], schema)
            elif step.isdigit() and "items" in node:
                following += _alternatives(node["items"], schema)
        nodes = following
    return sorted({key for node in nodes for key in node.get("properties", {})})


def _alternatives(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return [schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]]
    options = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
    return [found for option in options for found in _alternatives(option, schema)] if options else [node]
