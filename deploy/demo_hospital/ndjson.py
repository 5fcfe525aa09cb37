"""NDJSON files as a bulk export writes them: one resource a line, several files a type."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import IO

LINES_PER_FILE = 20_000


class NdjsonFolder:
    """Writes NDJSON, several files a resource type, and knows each line's place.

    Parameters
    ----------
    folder
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, IO[str]] = {}
        self.numbers: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()

    def _name(self, stem: str) -> str:
        return f"{stem}.{self.numbers[stem] + 1:04d}.ndjson"

    def write(self, stem: str, text: str) -> tuple[str, int]:
        """Append a line; return its file's name and its line number, from 1."""
        if stem not in self.files:
            self.files[stem] = (self.folder / self._name(stem)).open("w", encoding="utf-8", newline="\n")
        self.files[stem].write(text + "\n")
        self.lines[stem] += 1
        return self._name(stem), self.lines[stem]

    def end_of_stay(self) -> None:
        """Begin new files where the current ones are long; versions of one resource stay in one file."""
        for stem in [stem for stem, lines in self.lines.items() if lines >= LINES_PER_FILE]:
            self.files.pop(stem).close()
            self.numbers[stem] += 1
            self.lines[stem] = 0

    def close(self) -> None:
        """Close all files."""
        for file in self.files.values():
            file.close()
