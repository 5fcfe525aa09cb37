"""Check the licence of every installed package against an allow-list: ``python deploy/bootstrap/licences.py``.

Permissive licences pass, and weak copyleft ones that ask nothing of a program that only imports them. Anything else is
named and fails, so that a person reads it; what a person has read stands in ``READ``.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions

ALLOWED = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Python-2\.0|CNRI-Python|MPL|Mozilla Public License|"
    r"Unlicense|"
    r"Zlib|HPND|0BSD|BSL-1\.0|Boost|public domain|CC0|LGPL|Lesser General Public|NVIDIA|BlueOak)\b",
    re.IGNORECASE,
)
REFUSED = re.compile(r"\b(AGPL|Affero|GPL|General Public License)\b", re.IGNORECASE)
WEAK = re.compile(r"\b(LGPL|Lesser General Public License|Lesser)\b", re.IGNORECASE)

READ = {
    "nightingale": "ourselves",
    "cuda-toolkit": "NVIDIA's redistributable CUDA wheels, under its CUDA licence; part of torch's CUDA build",
    "text-unidecode": "its author's choice of Artistic License or GPL: the first is taken; Airflow's slugs use it",
}
"""Packages whose metadata do not say it, and where a person found it."""


def licence_of(package: Distribution) -> str:
    """Return what a package's metadata say of its licence: expression, classifiers, or the field's first line."""
    metadata = package.metadata
    expressions = metadata.get_all("License-Expression")
    if expressions:
        return str(expressions[0])
    classifiers = [
        text.split("::")[-1].strip()
        for text in metadata.get_all("Classifier") or []
        if text.startswith("License ::") and not text.endswith("OSI Approved")
    ]
    if classifiers:
        return "; ".join(classifiers)
    lines = "\n".join(metadata.get_all("License") or []).strip().splitlines()
    if lines:
        return lines[0]
    names = " ".join(str(path) for path in package.files or [] if "licen" in path.name.lower())
    texts = [path.read_text("utf-8") for path in package.files or [] if "licen" in path.name.lower()][:1]
    return (texts[0][:300] if texts else names) or "unknown"


def allowed(licence: str) -> bool:
    """Tell whether a licence needs no reader.

    A choice of licences (``A OR B``) passes if one of them does.

    Examples
    --------
    >>> allowed("Apache-2.0"), allowed("GPL-3.0-only"), allowed("MIT OR GPL-2.0"), allowed("LGPLv3")
    (True, False, True, True)
    """
    for choice in re.split(r"\s+OR\s+", licence):
        strong = REFUSED.search(WEAK.sub("", choice))
        if ALLOWED.search(choice) and not strong:
            return True
    return False


def main() -> int:
    """Print what needs a reader; return the number of such packages."""
    found = {package.metadata["Name"]: licence_of(package) for package in distributions()}
    open_ = {name: text for name, text in found.items() if not allowed(text) and name not in READ}
    for name, text in sorted(open_.items()):
        print(f"read the licence of {name}: {' '.join(text.split())[:100]}")
    print(f"licences: {len(found)} packages, {len(open_)} to read")
    return len(open_)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
