"""What the doctor says of servers, codes, secrets, disks and models, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from reading_server import Answer, Seen, fhir, serving
from typer.testing import CliRunner

from deploy.command_line.doctor import app
from deploy.demo_hospital.build import build_hospital
from deploy.doctor.check import Check, State, guarded
from deploy.doctor.codes import count_codings, judge_codings
from deploy.doctor.examine import examine
from deploy.doctor.machine import check_disk, check_programs
from deploy.doctor.servers import check_clock, writing_ways
from deploy.servers import Prerequisite
from fhir_adapter.transport import Reply

TYPES = ("Patient", "Encounter", "Observation", "DocumentReference", "ImagingStudy")
HEART_RATE = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}


def statement(*, writes: bool = True, searches: tuple[str, ...] = TYPES) -> dict[str, Any]:
    resources: list[dict[str, Any]] = [
        {"type": name, "interaction": [{"code": "search-type"}]} for name in searches
    ]
    for name in ("RiskAssessment", "Device", "Provenance") if writes else ():
        resources.append({"type": name, "interaction": [{"code": "update"}], "updateCreate": True})
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.0.1",
        "software": {"name": "Ward Server", "version": "7"},
        "rest": [{"mode": "server", "resource": resources}],
    }


def ward(
    *, refused: tuple[str, ...] = (), code: dict[str, Any] = HEART_RATE, **capable: Any
) -> Callable[[Seen], Answer]:
    """Answer as a FHIR server with one Observation."""

    def answer(seen: Seen) -> Answer:
        name = seen.target.split("?")[0].rsplit("/", 1)[-1]
        if name == "metadata":
            return fhir(statement(**capable))
        if name in refused:
            return fhir({"resourceType": "OperationOutcome"}, 403)
        observation = {"resourceType": "Observation", "code": code, "valueInteger": 80}
        entries = [{"resource": observation}] if name == "Observation" else []
        return fhir({"resourceType": "Bundle", "type": "searchset", "entry": entries})

    return answer


def site(folder: Path, base: str, extra: str = "") -> Path:
    path = folder / "site.toml"
    path.write_text(
        f'[source]\nkind = "search"\nbase_url = "{base}"\n'
        f'[storage]\nruns = "{folder / "runs"}"\naudit = "{folder / "audit"}"\n'
        f'database = "sqlite:///{folder / "n.sqlite"}"\n'
        f'[destination]\nkind = "fhir"\n{extra}',
        encoding="utf-8",
    )
    return path


def by_subject(checks: list[Check]) -> dict[str, Check]:
    return {check.subject: check for check in checks}


def test_a_good_server_passes_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    with serving(ward()) as server:
        checks = by_subject(examine(config=site(tmp_path, server.base), environment={}))
    assert checks["source.server"].found == "FHIR 4.0.1, Ward Server 7"
    assert checks["source.rights"].found.endswith("ImagingStudy")
    assert checks["destination.RiskAssessment"].found == "can be written by update"
    assert checks["model"].found.endswith("answers in-hospital-mortality")
    failed = [check for check in checks.values() if check.state is State.FAILED]
    assert failed == []


def test_a_bad_server_is_named_point_by_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    local = {"coding": [{"system": "urn:ward", "code": "HR", "display": "Mrs Miller's pulse"}]}
    answer = ward(refused=("Encounter",), code=local, writes=False, searches=TYPES[:3])
    with serving(answer) as server:
        checks = by_subject(examine(config=site(tmp_path, server.base), environment={}))
    states = {name: check.state for name, check in checks.items()}
    assert states["source.rights"] is State.FAILED
    assert checks["source.rights"].remedy == "ask its administrators for system/Encounter.read"
    assert states["source.search"] is State.WARNING and "ImagingStudy" in checks["source.search"].found
    assert states["destination.RiskAssessment"] is State.FAILED
    assert states["destination.Device"] is State.WARNING
    assert states["source.codes"] is State.FAILED and "urn:ward|HR (1)" in checks["source.codes"].remedy
    assert "Miller" not in json.dumps([check.to_dict() for check in checks.values()])


def test_a_server_that_is_not_there_fails_and_the_rest_is_still_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    checks = by_subject(examine(config=site(tmp_path, "http://127.0.0.1:9/fhir"), environment={}))
    assert checks["source"].state is State.FAILED
    assert checks["images"].state is State.OK


def test_a_missing_secret_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    monkeypatch.delenv("WARD_TOKEN", raising=False)
    auth = '[source.auth]\nkind = "bearer"\ntoken_env = "WARD_TOKEN"\n'
    with serving(ward()) as server:
        checks = by_subject(examine(config=site(tmp_path, server.base, auth), environment={}))
        assert checks["source.auth"].state is State.FAILED
        assert "WARD_TOKEN" in checks["source.auth"].found
        assert server.seen == []


def test_a_folder_source_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    build_hospital(tmp_path / "hospital", patients=4, night=date(2026, 1, 19), history=False)
    path = tmp_path / "site.toml"
    path.write_text(
        f'[source]\nfolder = "{tmp_path / "hospital" / "fhir"}"\n[storage]\nruns = "{tmp_path}"\n'
    )
    result = CliRunner().invoke(app, ["--config", str(path), "--json"])
    checks = {item["subject"]: item for item in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 0 and json.loads(result.stdout)["ok"]
    assert "values have a code that the catalogue knows" in checks["source.codes"]["found"]


def test_a_wrong_setting_fails_without_showing_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    path = tmp_path / "site.toml"
    path.write_text('[source]\nkind = "search"\n[site]\nname = "St Mary 123-45-6789"\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["--config", str(path)])
    assert result.exit_code == 1
    assert "site.name" in result.stdout and "6789" not in result.stdout


def test_a_changed_weights_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from deploy.champion import SHIPPED_BY_TASK
    from deploy.doctor.storage import check_model
    from deploy.settings import load_settings

    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    model = tmp_path / "model"
    shutil.copytree(SHIPPED_BY_TASK["in-hospital-mortality"], model)
    config = model / "config.json"
    config.write_text(config.read_text("utf-8") + " ", encoding="utf-8")
    settings = load_settings(source={"folder": tmp_path}, night={"model": model})
    [check] = check_model(settings)
    assert check.state is State.FAILED and "are not those of its card" in check.found


def test_a_missing_program_fails_only_where_it_is_needed() -> None:
    gone = Prerequisite("Orthanc with DICOMweb", None, "FHIR=hapi (the PACS)", "apt-get install -y orthanc")
    [optional] = check_programs([gone], needed=False)
    [needed] = check_programs([gone], needed=True)
    assert (optional.state, needed.state) == (State.WARNING, State.FAILED)
    assert needed.remedy == "apt-get install -y orthanc"


def test_disk_is_judged_where_the_runs_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1024**3))
    [check] = check_disk(tmp_path / "not" / "yet")
    assert check.state is State.FAILED and str(tmp_path) in check.found


def test_an_unexpected_error_shows_its_class_only() -> None:
    def look() -> list[Check]:
        raise ValueError("could not parse 'Miller, Anna'")

    [check] = guarded("x", "do this", look)
    assert (check.state, check.found) == (State.FAILED, "an unexpected ValueError")


def test_ways_of_writing_follow_the_capability_statement() -> None:
    update = {"type": "RiskAssessment", "interaction": [{"code": "update"}, {"code": "create"}]}
    declared = {"rest": [{"resource": [update | {"conditionalCreate": True}]}]}
    assert writing_ways(declared, "RiskAssessment") == ["conditional create"]
    assert writing_ways({"rest": [{"resource": [update]}]}, "RiskAssessment") == []
    assert writing_ways({}, "RiskAssessment") == []


@pytest.mark.parametrize("header", [None, "yesterday"])
def test_a_server_without_a_readable_clock_is_passed_over(header: str | None) -> None:
    reply = Reply(200, {} if header is None else {"date": header}, b"", "", "")
    [check] = check_clock(reply, now=datetime(2026, 1, 1, tzinfo=UTC), subject="clock")
    assert check.state is State.OK


def test_an_empty_source_is_a_warning() -> None:
    [check] = judge_codings(count_codings([], set()))
    assert check.state is State.WARNING


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.OK), (31, State.WARNING), (-301, State.FAILED), (301, State.FAILED)]
)
def test_clocks_may_not_differ_much(seconds: int, state: State) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    header = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
    [check] = check_clock(Reply(200, {"date": header}, b"", "", ""), now=now, subject="clock")
    assert check.state is state and check.found.startswith(f"{abs(seconds)} s")
