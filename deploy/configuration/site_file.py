"""A commented TOML file of a site: every field with its meaning, those that differ from the default set."""

from __future__ import annotations

import textwrap
from datetime import datetime

from deploy.configuration.fields import Setting, sections, toml_value
from deploy.configuration.from_metadata import Proposal

WIDTH = 100


def render_site_file(proposal: Proposal, *, origin: str, now: datetime) -> str:
    """Return the file's text.

    Parameters
    ----------
    origin
        Address that was asked, for the first line.
    now
        When, for the first line.
    """
    lines = [
        f"# Settings of Nightingale, written by `nightingale init` on {now:%Y-%m-%d} from {origin}/metadata.",
        "# A line that starts with '# name =' shows a default; take the '#' away to change it.",
        "# Check it with `nightingale doctor --config <this file>`; no secret belongs in here.",
    ]
    for section in sections():
        lines += ["", "", f"# {section.summary}", f"[{section.name}]"]
        for setting in section.settings:
            lines += ["", *_field(setting, proposal)]
    return "\n".join(lines) + "\n"


def _field(setting: Setting, proposal: Proposal) -> list[str]:
    key = (setting.section, setting.name)
    meaning = f"{setting.description.removesuffix('.')}. ({setting.kind})"
    lines = _comment(meaning)
    if key in proposal.notes:
        lines += _comment(f"> {proposal.notes[key]}")
    if key in proposal.values:
        return [*lines, f"{setting.name} = {toml_value(proposal.values[key])}"]
    shown = toml_value(setting.default) if setting.default is not None else '""'
    return [*lines, f"# {setting.name} = {shown}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
