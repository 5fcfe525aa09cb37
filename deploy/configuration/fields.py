"""Walk the settings models, so that page and file can never say other than the code."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deploy.settings import Settings


@dataclass(frozen=True)
class Setting:
    """One field of a section.

    Attributes
    ----------
    name, section
        ``base_url`` and ``source``.
    kind
        Type in words.
    default
        Default value, or None where there is none.
    description
        What it means, from the model.
    """

    section: str
    name: str
    kind: str
    default: Any
    description: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"NIGHTINGALE_{self.section}__{self.name}".replace(".", "__").upper()


@dataclass(frozen=True)
class Section:
    """A table of the settings file.

    Attributes
    ----------
    name
        ``source`` or ``source.auth``.
    summary
        The model's docstring, first line.
    """

    name: str
    summary: str
    settings: tuple[Setting, ...]


def sections(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Section]:
    """Yield every section in the order of the code, a nested one after the one that holds it."""
    own: list[Setting] = []
    nested: list[Section] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            nested += sections(inner, f"{prefix}.{name}" if prefix else name)
        else:
            own.append(Setting(prefix, name, kind_of(field.annotation), _default(field), _meaning(field)))
    if prefix:
        yield Section(prefix, (model.__doc__ or "").strip().splitlines()[0], tuple(own))
    yield from nested


def _meaning(field: FieldInfo) -> str:
    limits = [
        f"{word} {getattr(item, key)}"
        for item in field.metadata
        for key, word in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
        if getattr(item, key, None) is not None
    ]
    text = (field.description or "").strip()
    return f"{text.removesuffix('.')} ({', '.join(limits)})." if limits else text


def _default(field: FieldInfo) -> Any:
    if field.default is not PydanticUndefined:
        return field.default
    return field.default_factory() if field.default_factory else None  # type: ignore[call-arg]


def kind_of(annotation: Any) -> str:
    """Return a type in words that a person who never wrote Python knows.

    Examples
    --------
    >>> kind_of(int | None)
    'whole number'
    >>> kind_of(Literal["none", "basic"])
    '"none" or "basic"'
    """
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        time: "time",
    }
    if annotation in names:
        return names[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        words = [f'"{part}"' for part in parts]
        return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
    if origin in {Union, types.UnionType}:
        return " or ".join(kind_of(part) for part in parts if part is not type(None))
    if origin is dict:
        return "table"
    if origin in {list, tuple}:
        return f"list of {kind_of(parts[0])}" if parts else "list"
    return getattr(annotation, "__name__", str(annotation))


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it.

    Examples
    --------
    >>> toml_value({"Epic-Client-ID": "x"})
    '{ "Epic-Client-ID" = "x" }'
    >>> toml_value(time(5, 0))
    '05:00:00'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, dict):
        items = ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
