"""Kinds of one thing, such as editors: each is a module of one package, which brings its section of the config."""

from __future__ import annotations

import importlib
import pkgutil

from pipeline_lib.config.base import Section


def find_kinds(package: str, key: str = "kind") -> tuple[type[Section], ...]:
    """Import the modules of a package, and return the section of each kind that one of them defines, by module.

    So a config knows no kind by name. The modules must load fast: what they import in functions is not needed here.

    Args:
        package: name of the package.
        key: key of the sections that has the name of the kind.
    """
    sections = []
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        module = importlib.import_module(found.name)
        sections += [
            value for value in vars(module).values() if _is_kind(value, key) and value.__module__ == found.name
        ]
    return tuple(sections)


def _is_kind(value: object, key: str) -> bool:
    return isinstance(value, type) and issubclass(value, Section) and key in value.model_fields
