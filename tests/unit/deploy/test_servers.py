"""What the launchers do without any server: processes, prerequisites, how a hospital is cut into requests."""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path

import pytest

from deploy.errors import PrerequisiteError, ServerError
from deploy.servers import Prerequisite, prerequisites, require
from deploy.servers.loading import _batched, _carry_attachments, _first_only, _Line
from deploy.servers.processes import ServerProcess, cache_folder, free_port

SERVER = """
import pathlib, sys, time
print("listening"); sys.stdout.flush()
pathlib.Path("ready").touch()
{rest}
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def start(process: ServerProcess, rest: str, *, timeout: float = 20) -> int:
    command = [sys.executable, "-c", SERVER.format(rest=rest)]
    process.start(command, ready=(process.work / "ready").is_file, timeout=timeout)
    assert process._process is not None
    return process._process.pid


def test_a_process_is_started_and_ended(tmp_path: Path) -> None:
    process = ServerProcess("sleeper", folder=tmp_path)
    pid = start(process, "time.sleep(600)")
    assert alive(pid) and "listening" in process.log_tail()
    process.stop()
    assert not alive(pid)
    process.clean()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path) -> None:
    process = ServerProcess("stubborn", folder=tmp_path)
    pid = start(process, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
    time.sleep(0.3)
    process.stop(patience=0.5)
    assert not alive(pid)


def test_a_process_that_ends_early_says_why(tmp_path: Path) -> None:
    process = ServerProcess("broken", folder=tmp_path)
    with pytest.raises(ServerError, match=r"broken ended with status 3:\n.*port is taken"):
        process.start(
            [sys.executable, "-c", "print('port is taken'); raise SystemExit(3)"],
            ready=lambda: False,
            timeout=20,
        )


def test_a_process_that_never_answers_is_ended(tmp_path: Path) -> None:
    process = ServerProcess("mute", folder=tmp_path)
    with pytest.raises(ServerError, match="mute was not ready after 1 s"):
        process.start([sys.executable, "-c", "import time; time.sleep(600)"], ready=lambda: False, timeout=1)
    assert process._process is None


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" and cache_folder().is_dir()


def test_ports_are_free_and_differ() -> None:
    assert 1024 < free_port() < 65536


def test_prerequisites_say_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {item.name: item for item in prerequisites()}
    assert found["JDK 17 or newer"].found is None and found["Maven"].found is None
    with pytest.raises(
        PrerequisiteError, match=r"JDK 17 or newer: apt-get install -y openjdk-17-jdk-headless"
    ):
        require(found["JDK 17 or newer"])
    require(Prerequisite("Python", "3.11", "all", ""))


def test_a_second_version_waits_for_the_first() -> None:
    lines = [_Line(f"f:{n}", {"resourceType": "Observation", "id": key}) for n, key in enumerate("abacb")]
    again: list[_Line] = []
    first = list(_first_only(lines, set(), again))
    assert [line.place for line in first] == ["f:0", "f:1", "f:3"]
    assert [line.place for line in again] == ["f:2", "f:4"]
    assert [len(group) for group in _batched(range(7), 3)] == [3, 3, 1]


def test_attachments_outside_the_archive_are_not_carried(tmp_path: Path) -> None:
    archive = tmp_path / "wfdb"
    archive.mkdir()
    (archive / "a.hea").write_bytes(b"header")
    (tmp_path / "secret.hea").write_bytes(b"secret")
    for inline in (False, True):
        urls = ["a.hea", "../secret.hea", "gone.dat"]
        content = [{"attachment": {"url": url, "contentType": "application/x-wfdb-header"}} for url in urls]
        document = {"resourceType": "DocumentReference", "id": "d", "content": content}
        binaries = _carry_attachments(document, archive, inline=inline)
        encoded = base64.b64encode(b"header").decode()
        if inline:
            assert content[0]["attachment"]["data"] == encoded and binaries == []
        else:
            assert [item["data"] for item in binaries] == [encoded]
            assert content[0]["attachment"]["url"] == "Binary/d-1"
        assert [item["attachment"]["url"] for item in content[1:]] == ["../secret.hea", "gone.dat"]
