"""Fixtures shared by every kind of test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real open data; the test skips where the site has none."""
    folder = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no open data at {folder}; set NIGHTINGALE_DATA to run this test")
    return folder
