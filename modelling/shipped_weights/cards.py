"""Model cards as pages for people, rendered from the cards of the shipped folders.

python -m modelling.shipped_weights.cards docs/model_cards
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelling.errors import ModellingError
from modelling.registry.folder import read_folder

HERE = Path(__file__).parent
MEASURED = {
    "out_of_fold": "out of fold",
    "train": "on training patients",
    "tuning": "on tuning patients",
    "held_out": "on held-out patients",
}


def shipped_folders(root: Path = HERE) -> list[Path]:
    """Return the folders with weights, by name."""
    return sorted(path.parent for path in root.glob("*/weights.safetensors"))


def render_card(folder: Path) -> str:
    """Return one card as Markdown: what it is, its training data, how it did, and its limits.

    Raises
    ------
    CheckpointFormatError, CheckpointDigestError
        If the folder is not what its card says.
    """
    card = read_folder(folder).card
    lines = [f"# {card['name']}", "", str(card["description"]), ""]
    facts = {
        "Folder": f"`modelling/shipped_weights/{folder.name}`" if folder.parent == HERE else None,
        "Version": card["version"],
        "Task": card["task"],
        "Inputs": ", ".join(card["modalities"]),
        "Digest": f"`{card['digest']}`",
        "Catalogue": f"`{card['catalogue_digest']}`" if card.get("catalogue_digest") else None,
        "Size": f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB",
    }
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    lines += ["", "## Trained on", ""]
    lines += [f"- {name}: {_value(value)}" for name, value in card["trained_on"].items()]
    for part, found in card["metrics"].items():
        lines += ["", f"## Measured {MEASURED.get(part, part)}", ""]
        lines += _metrics(found)
    if card.get("thresholds"):
        lines += ["", "## Risk levels", ""]
        lines += [f"- {item['level']}: from {item['from']}" for item in card["thresholds"]]
    lines += ["", "## Limits", ""]
    lines += [f"- {limit}" for limit in card["limits"]]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def _metrics(found: Mapping[str, Any]) -> list[str]:
    lines = ["| metric | value | 95 % interval |", "|---|--:|--:|"]
    for name, value in found.items():
        if isinstance(value, Mapping):
            interval = f"{value['lower']:.3f} to {value['upper']:.3f}"
            lines.append(f"| {name.replace('|', ', ')} | {value['value']:.3f} | {interval} |")
        else:
            lines.append(f"| {name} | {value} | |")
    return lines


def write_cards(out: Path) -> list[Path]:
    """Write one page a shipped folder and return the paths."""
    out.mkdir(parents=True, exist_ok=True)
    pages = []
    for folder in shipped_folders():
        page = out / f"{folder.name}.md"
        page.write_text(render_card(folder), encoding="utf-8")
        pages.append(page)
    return pages


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write the shipped models' cards as Markdown")
    parser.add_argument("out", type=Path)
    try:
        for page in write_cards(parser.parse_args().out):
            print(page)
    except ModellingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
