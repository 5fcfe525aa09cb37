"""What the documentation tells people to type exists: commands, their options, make targets, links of README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from deploy.command_line.app import GROUPS, MODULES, build

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
NOT_COMMANDS = {"app", "progress", "options", "runs"}
"""Modules of the command line that others share."""


@pytest.fixture(scope="module")
def command() -> Any:
    return get_command(build())


def typed(page: Path) -> list[str]:
    """Return every command line of ours in a page's code, continuation lines joined."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    code = re.findall(r"```.*?\n(.*?)```", text, re.S)
    code += ["\n".join(line for line in text.splitlines() if line.startswith("        "))]
    lines = [line for block in code for line in block.splitlines()]
    lines += re.findall(r"`(nightingale [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return [found[1] for line in lines if (found := re.match(r"\s*(?:\$ )?(nightingale [a-z].*)", line))]


def test_every_module_of_the_command_line_is_registered() -> None:
    modules = {path.stem for path in (PROJECT / "deploy" / "command_line").glob("[a-z]*.py")}
    assert modules - NOT_COMMANDS == {*MODULES, *GROUPS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_a_page_exist(command: Any, page: Path) -> None:
    wrong = []
    for line in typed(page):
        words = re.split(r"\s+#|\s[|>&]", line)[0].split()[1:]
        found = command
        while hasattr(found, "commands") and words and not words[0].startswith("-"):
            name = words.pop(0)
            found = found.commands.get(name)
            if found is None:
                wrong.append(f"{line}: no command {name}")
                break
        if found is None:
            continue
        known = {"--help"} | {opt for item in found.params for opt in (*item.opts, *item.secondary_opts)}
        wrong += [
            f"{line}: no option {word}" for word in words if word.startswith("--") and word not in known
        ]
    assert wrong == []


def test_make_targets_in_the_documentation_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.M))
    named = {
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", page.read_text("utf-8"), re.M)
        for target in target
        if target
    }
    assert named and {(page, target) for page, target in named if target not in known} == set()


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (PROJECT / "README.md").read_text("utf-8"))
    assert len(links) > 3
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_every_test_that_the_documentation_names_exists() -> None:
    tests = "".join(path.read_text("utf-8") for path in (PROJECT / "tests").rglob("*.py"))
    files = {path.name for path in (PROJECT / "tests").rglob("*.py")}
    words = {
        (page.name, word)
        for page in PAGES
        for word in re.findall(r"`(?:[\w/]*/)?(test_\w+(?:\.py)?)`", page.read_text("utf-8"))
    }
    assert len(words) > 40
    missing = {(page, word) for page, word in words if word not in files and f"def {word}(" not in tests}
    assert missing == set()


def test_no_placeholder_is_left_in_the_documentation() -> None:
    assert [page.name for page in PAGES if re.search(r"@@[A-Z]", page.read_text("utf-8"))] == []
