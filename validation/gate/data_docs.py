"""Data Docs that a hospital network can show: no script, style, font or picture from outside.

Great Expectations' pages load Bootstrap, jQuery, Vega and a logo from five hosts. They are
rewritten: scripts and links to stylesheets go, one small stylesheet is put inline, collapsed parts
are shown open, links to outside become text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

_SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)
_STYLE = re.compile(r"<style\b.*?</style\s*>", re.DOTALL | re.IGNORECASE)
_LINK = re.compile(r"<link\b[^>]*>", re.IGNORECASE)
_FRAME = re.compile(r"<iframe\b.*?</iframe\s*>", re.DOTALL | re.IGNORECASE)
_PICTURE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_OUTSIDE = re.compile(
    r"<a\b[^>]*\bhref\s*=\s*[\"'](?:https?:)?//[^>]*>(.*?)</a\s*>", re.DOTALL | re.IGNORECASE
)
_BUTTON = re.compile(r"<button\b.*?</button\s*>", re.DOTALL | re.IGNORECASE)
_MET = re.compile(r"<i\b[^>]*\btext-success\b[^>]*>\s*</i>")
_NOT_MET = re.compile(r"<i\b[^>]*\btext-(?:danger|warning)\b[^>]*>\s*</i>")
_SWITCH = re.compile(r"<input\b[^>]*>\s*(<label\b.*?</label\s*>)?", re.DOTALL | re.IGNORECASE)
_HANDLER = re.compile(r"\son[a-z]+\s*=\s*(\"[^\"]*\"|'[^']*')", re.IGNORECASE)
_HEAD = re.compile(r"</head\s*>", re.IGNORECASE)
_HTML = re.compile(r"<html(?![^>]*\blang=)([^>]*)>", re.IGNORECASE)

_CSS = """
:root { color-scheme: light dark; --ink: #1b2733; --paper: #fff; --line: #c8d0d8; --soft: #f1f4f7;
  --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf0; --paper: #14191f; --line: #3b4651; --soft: #1e262e; --link: #7db8f5 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
a { color: var(--link) }
nav[style] { height: auto !important }
table { border-collapse: collapse; max-width: 100%; display: block; overflow-x: auto; margin: .5rem 0 1rem }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: var(--soft) }
ul { padding-left: 1.2rem }
.badge, .alert { border: 1px solid var(--line); background: var(--soft); padding: .1rem .4rem;
  border-radius: .3rem }
.collapse { display: block !important }
.fade { opacity: 1 }
.d-none, .modal, .card:has(.btn-group-toggle) { display: none }
.ge-breadcrumbs { display: block; list-style: none; padding: 0 }
"""


def rewrite_page(page: str) -> str:
    """Return an HTML page of the Data Docs without anything that a browser would fetch from elsewhere.

    Examples
    --------
    >>> page = rewrite_page('<html><head><script src="https://cdn/x.js"></script></head><p>kept</p></html>')
    >>> "cdn" in page, "kept" in page
    (False, True)
    """
    page = _NOT_MET.sub("✕ not met", _MET.sub("✓ met", page))  # signs from a font that is not shipped
    for pattern in (_SCRIPT, _STYLE, _LINK, _FRAME, _PICTURE, _BUTTON, _SWITCH, _HANDLER):
        page = pattern.sub("", page)
    page = _OUTSIDE.sub(r"\1", page)
    page = _HTML.sub(r'<html lang="en"\1>', page, count=1)
    return _HEAD.sub(lambda found: f"<style>{_CSS}</style>{found[0]}", page, count=1)


def index_page(
    results: Mapping[str, tuple[int, int]], pages: Mapping[str, tuple[str, str]], name: str
) -> str:
    """Return the first page; Great Expectations fills its own by a script, which is gone here.

    Parameters
    ----------
    results
        By suite: expectations met, expectations evaluated.
    pages
        By suite: relative paths of its results and of its expectations.
    name
        The run.
    """
    rows = "".join(
        f'<tr><th scope="row">{escape(suite)}</th><td>{met} of {evaluated} met</td>'
        f'<td><a href="{escape(pages[suite][0])}">results of {escape(suite)}</a></td>'
        f'<td><a href="{escape(pages[suite][1])}">expectations of {escape(suite)}</a></td></tr>'
        for suite, (met, evaluated) in results.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data Docs: {escape(name)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>'
        f"<body><main><h1>Data Docs: {escape(name)}</h1>"
        "<p>Great Expectations' results over the profile tables of this run. They hold aggregates only.</p>"
        '<table><thead><tr><th scope="col">Suite</th><th scope="col">Outcome</th>'
        '<th scope="col">Results</th><th scope="col">Rules</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></main></body></html>"
    )


def make_readable_offline(
    site: Path, target: Path, *, results: Mapping[str, tuple[int, int]], name: str
) -> None:
    """Copy the pages of a Data Docs site to ``target``, rewritten by :func:`rewrite_page`.

    Fonts, pictures and scripts of the site are left behind; the first page is :func:`index_page`.
    """
    for path in sorted(site.rglob("*.html")):
        copy = target / path.relative_to(site)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(rewrite_page(path.read_text("utf-8")), encoding="utf-8")
    pages = {
        suite: (
            next((target / "validations" / suite).rglob("*.html")).relative_to(target).as_posix(),
            f"expectations/{suite}.html",
        )
        for suite in results
    }
    (target / "index.html").write_text(index_page(results, pages, name), encoding="utf-8")
