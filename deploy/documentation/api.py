"""The API reference: every public module with its classes and functions, read from the source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = ("fhir_adapter", "modelling", "validation", "deploy")


@dataclass(frozen=True)
class Member:
    """A public class or function: its signature and the first paragraph of its docstring."""

    signature: str
    summary: str


@dataclass(frozen=True)
class Module:
    """A module: dotted name, first paragraph of its docstring, public members."""

    name: str
    summary: str
    members: tuple[Member, ...]


def modules(room: str, project: Path = PROJECT) -> Iterator[Module]:
    """Yield the modules of a room in the order of their names."""
    for path in sorted((project / room).rglob("*.py")):
        if "migrations" in path.parts or (path.name.startswith("_") and path.name != "__init__.py"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        members = tuple(_members(tree))
        name = ".".join(path.relative_to(project).with_suffix("").parts).removesuffix(".__init__")
        summary = first_paragraph(ast.get_docstring(tree))
        if summary and (members or path.name == "__init__.py"):
            yield Module(name, summary, members)


def first_paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _members(tree: ast.Module) -> Iterator[Member]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        summary = first_paragraph(ast.get_docstring(node))
        if node.name.startswith("_") or not summary:
            continue
        if isinstance(node, ast.ClassDef):
            yield Member(f"class {node.name}", summary)
        else:
            result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield Member(f"{node.name}({ast.unparse(node.args)}){result}", summary)


def render(rooms: tuple[str, ...] = ROOMS, project: Path = PROJECT) -> str:
    """Return the reference as Markdown."""
    lines: list[str] = []
    for room in rooms:
        lines += [f"## {room}", ""]
        for module in modules(room, project):
            lines += [f"### `{module.name}`", "", module.summary, ""]
            for member in module.members:
                lines += ["```python", member.signature, "```", "", member.summary, ""]
    return "\n".join(lines)
