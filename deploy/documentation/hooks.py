"""MkDocs calls this while it builds: two pages are filled from the code."""

from __future__ import annotations

from typing import Any

API, COMMANDS = "<!-- api -->", "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return a page's text with generated parts in place."""
    del page, config, files
    if API in markdown:
        from deploy.documentation import api

        markdown = markdown.replace(API, api.render())
    if COMMANDS in markdown:
        from deploy.documentation import commands

        markdown = markdown.replace(COMMANDS, commands.render())
    return markdown
