"""Messages go out by real SMTP and real HTTP, say what is wrong, and hold nothing of patients."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from reading_server import Answer, Seen, serving

from deploy.alerts.callbacks import tell_of_deadline, tell_of_failure
from deploy.alerts.channels import send
from deploy.alerts.message import Message, from_context
from deploy.alerts.settings import Alerts
from deploy.errors import SettingsError
from deploy.monitoring_job import steps as monitoring
from deploy.night.run import Run
from deploy.retraining import steps as retraining
from deploy.retraining.job import Retraining
from deploy.settings import load_settings

MESSAGE = Message("run_failed", "ward", "nightly_inference", "manual__1", "task_failure", ("5 dead letters",))


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """Speak as much SMTP as a client needs, and keep the mails."""
    mails: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ward\r\n")
            while line := self.rfile.readline():
                word = line[:4].upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        lines.append(part.decode())
                    mails.append("".join(lines))
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                if word == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1], mails
        server.shutdown()


def test_a_message_goes_by_mail_and_webhook() -> None:
    with mail_server() as (port, mails), serving(lambda seen: Answer(204)) as hook:
        alerts = Alerts(
            emails=["it@ward.example"], smtp_host="127.0.0.1", smtp_port=port, webhook_url_env="HOOK"
        )
        outcomes = send(MESSAGE, alerts, environment={"HOOK": hook.base})
    assert outcomes == {"email": "sent", "webhook": "sent"}
    assert "Subject: Nightingale at ward: nightly_inference failed" in mails[0]
    assert "- 5 dead letters" in mails[0] and "To: it@ward.example" in mails[0]
    [request] = hook.seen
    body = json.loads(request.body)
    assert body["event"] == "run_failed" and body["text"].startswith("Nightingale at ward")


def test_a_way_that_fails_does_not_stop_the_other() -> None:
    def refuse(seen: Seen) -> Answer:
        return Answer(500)

    with mail_server() as (port, mails), serving(refuse) as hook:
        alerts = Alerts(emails=["a@b.example"], smtp_host="127.0.0.1", smtp_port=port, webhook_url_env="HOOK")
        outcomes = send(MESSAGE, alerts, environment={"HOOK": hook.base})
        assert outcomes == {"email": "sent", "webhook": "HTTPStatusError"} and len(mails) == 1
        assert send(MESSAGE, alerts, environment={}) == {"email": "sent", "webhook": "KeyError"}


def test_a_message_takes_names_from_the_run_and_never_its_configuration() -> None:
    run = SimpleNamespace(dag_id="nightly_inference", run_id="manual__2026", conf={"night": "2026-01-19"})
    message = from_context("run_failed", {"dag_run": run, "reason": "x"}, site="ward", ui_url="https://ui/")
    assert message.link == "https://ui/dags/nightly_inference/runs/manual__2026"
    assert "2026-01-19" not in message.text


def test_callbacks_tell_of_failures_and_of_late_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "site.toml"
    with serving(lambda seen: Answer(204)) as hook:
        config.write_text(
            f'[source]\nfolder = "{tmp_path}"\n[alerts]\nwebhook_url_env = "WARD_HOOK"\n', encoding="utf-8"
        )
        monkeypatch.setenv("NIGHTINGALE_CONFIG", str(config))
        monkeypatch.setenv("WARD_HOOK", hook.base)
        run = SimpleNamespace(dag_id="nightly_inference", run_id="r", conf={}, partition_key=None)
        tell_of_failure({"dag_run": run, "reason": "task_failure"})
        asyncio.run(
            tell_of_deadline({"dag_run": {"dag_id": "nightly_inference", "dag_run_id": "r"}}, "06:00")
        )
    first, second = (json.loads(request.body) for request in hook.seen)
    assert (first["event"], first["run_id"], first["reason"]) == ("run_failed", "r", "task_failure")
    assert (second["event"], second["reason"]) == ("deadline_missed", "not finished by 06:00")


def test_alarms_of_a_model_and_candidates_reach_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "site.toml"
    alarm = {"rule": "auroc_fall", "digest": "d" * 64, "start": "2026-01-01", "text": "AUROC 0.7"}
    (tmp_path / "summary.json").write_text(json.dumps({"alarms": [alarm]}), encoding="utf-8")
    run = Run(partition="2026-02-01", prediction_time=None, replay=None, folder=str(tmp_path))
    job = Retraining(version="v7", folder=str(tmp_path), mapped=None, source=None)
    candidate = {
        "digest": "c" * 64,
        "model": "medfuse",
        "task": "t",
        "promotable": False,
        "reasons": ["worse"],
    }
    with serving(lambda seen: Answer(204)) as hook:
        config.write_text(
            f'[source]\nfolder = "{tmp_path}"\n[alerts]\nwebhook_url_env = "WARD_HOOK"\n', encoding="utf-8"
        )
        monkeypatch.setenv("NIGHTINGALE_CONFIG", str(config))
        monkeypatch.setenv("WARD_HOOK", hook.base)
        assert monitoring.alarm({"run": run.to_dict()}) == [alarm]
        retraining.notify(job.to_dict(), [candidate])
        (tmp_path / "summary.json").write_text(json.dumps({"alarms": []}), encoding="utf-8")
        assert monitoring.alarm({"run": run.to_dict()}) == []
    told = [json.loads(request.body) for request in hook.seen]
    assert [item["event"] for item in told] == ["model_alarm", "candidates"]  # no alarm, no message
    assert told[0]["findings"] == ["auroc_fall, model dddddddddddd: AUROC 0.7"]
    assert told[1]["run_id"] == "v7" and told[1]["findings"] == ["candidate cccccccccccc (medfuse, t): worse"]


def test_a_callback_without_settings_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "/not/there.toml")
    tell_of_failure({"dag_run": None})


def test_addresses_without_a_mail_server_are_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.emails needs alerts\.smtp_host"):
        load_settings(source={"folder": tmp_path}, alerts={"emails": ["a@b.example"]})
