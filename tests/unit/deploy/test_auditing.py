"""The audit log as the settings ask for it: its key, what it shows, how long it is kept."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import SettingsError
from deploy.night.auditing import audit_log, prune_audit
from deploy.settings import Settings, load_settings

VARIABLE = "WARD_AUDIT_KEY"


def settings(folder: Path, **storage: Any) -> Settings:
    return load_settings(
        source={"kind": "folder", "folder": folder}, storage={"audit": folder / "audit", **storage}
    )


def test_processes_with_one_key_give_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "00ff" * 16)
    first, second = (audit_log(settings(tmp_path, audit_key_env=VARIABLE)) for _ in range(2))
    assert first.key == second.key == bytes.fromhex("00ff" * 16)
    alone = [audit_log(settings(tmp_path)) for _ in range(2)]
    assert alone[0].key != alone[1].key
    assert {log.patients for log in (first, *alone)} == {"hmac"}
    assert audit_log(settings(tmp_path, audit_patients="plain")).patients == "plain"


@pytest.mark.parametrize("value", [None, "", "no digits"])
def test_a_key_that_is_not_there_stops_the_site(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(SettingsError, match="WARD_AUDIT_KEY must hold"):
        audit_log(settings(tmp_path, audit_key_env=VARIABLE))


def test_the_site_says_how_long_it_keeps_the_log(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    for day in ("2020-01-14", "2020-01-20", "2026-01-01"):
        (tmp_path / "audit" / f"audit-{day}.jsonl").touch()
    today = date(2026, 1, 20)
    assert prune_audit(settings(tmp_path), today=today) == 1  # six years and a few days
    assert prune_audit(settings(tmp_path, audit_days=30), today=today) == 1
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["audit-2026-01-01.jsonl"]
