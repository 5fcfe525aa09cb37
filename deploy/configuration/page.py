"""The configuration reference, rendered from the settings models: ``python -m deploy.configuration.page``."""

from __future__ import annotations

from pathlib import Path

from deploy.configuration.fields import Section, sections, toml_value

TARGET = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
HEAD = """# Configuration reference

<!-- Written by `make reference` from deploy/settings.py; change the models there, not this page. -->

One typed object holds a site's settings (`deploy/settings.py`). They are read in this order, the first that says
something wins:

1. options of the command line;
2. environment variables, named below;
3. the TOML file that `NIGHTINGALE_CONFIG` names.

`nightingale init --fhir URL` writes a commented file from the server's `/metadata`; `nightingale doctor` checks it.
An unknown field in a section is an error, and an error names the field, never the value.

## Secrets

No field holds a secret. A field ending in `_env` names the environment variable that holds it;
`auth.connection` names an Airflow connection instead, which Airflow looks up in its secrets backends (Vault, cloud
secret managers, Kubernetes) before its own database; `auth.private_key_file` names a file, which only the service
account may read (`chmod 600`). A password in `storage.database` is best left out in favour of the environment
variable `NIGHTINGALE_STORAGE__DATABASE` or of PostgreSQL's `PGPASSFILE`.

Lists and tables are set in the environment as JSON: `NIGHTINGALE_SOURCE__EXTRA_HEADERS='{"Epic-Client-ID": "…"}'`.

## Variables outside the settings

| Variable | Meaning |
|---|---|
| `NIGHTINGALE_CONFIG` | The TOML file |
| `NIGHTINGALE_CACHE` | Folder of downloaded jars (demo and tests); default `~/.cache/nightingale` |
| `NIGHTINGALE_DATA` | Folder of open data for tests |
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def render_section(section: Section) -> str:
    """Return one section as a heading and a table."""
    rows = [
        f"| `{item.name}` | {_cell(item.kind)} | {_default(item.default)} | {_cell(item.description)} "
        f"| `{item.variable}` |"
        for item in section.settings
    ]
    head = "| Field | Type | Default | Meaning | Environment |\n|---|---|---|---|---|"
    return "\n".join([f"## `[{section.name}]`", "", section.summary, "", head, *rows, ""])


def _default(value: object) -> str:
    return "–" if value is None else f"`{_cell(toml_value(value))}`"


def render_page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(render_section(section) for section in sections())])


if __name__ == "__main__":
    TARGET.write_text(render_page(), encoding="utf-8")
    print(f"{TARGET.name}: written")
