"""The command reference: every command and option of ``nightingale``, read from the command itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def render() -> str:
    """Return the reference as Markdown."""
    from typer.main import get_command

    from deploy.command_line.app import build

    return "\n".join(_lines(get_command(build()), "nightingale"))


def _lines(command: Any, name: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children:
        for child, inner in sorted(children.items()):
            yield from _lines(inner, f"{name} {child}")
        return
    yield from (f"## `{name}`", "", _paragraphs(command.help or ""), "")
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield from ("| Option | Meaning |", "|---|---|", *rows, "")


def _paragraphs(text: str) -> str:
    """Return a help text as Markdown: its examples, which are commands, as code."""
    lines = []
    for line in text.replace("\b", "").strip().splitlines():
        bare = line.strip().removeprefix("Example: ").removeprefix("Examples:")
        shown = bare.startswith(("nightingale ", "NIGHTINGALE_", "AIRFLOW__"))
        lines.append(f"`{bare}`" if shown else bare)
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if getattr(parameter, "param_type_name", "") == "argument":
        names = f"`{parameter.name.upper()}`"
    text = str(getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
    return f"| {names} | {text} |"
