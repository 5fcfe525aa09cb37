"""A ward of two patients, of whom one is forgotten: nothing of the one stays, nothing of the other goes."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from deploy.command_line.forget import app
from deploy.forget import forget
from deploy.forget.erase import ForgetError
from deploy.forget.proof import search
from deploy.forget.tables import replace_table
from deploy.forget.trace import Trace, collect
from deploy.settings import Settings, load_settings
from fhir_adapter.audit import AuditLog, Identity
from fhir_adapter.store import Ledger, open_engine
from fhir_adapter.store.ledger import LedgerRow
from fhir_adapter.transport import Interaction
from modelling.scoring.identity import score_key
from validation.contracts import Manifest, read_table, write_json, write_table
from validation.contracts.store import empty_schema

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
NIGHT = datetime(2026, 1, 19, 4, tzinfo=UTC)
ANNA, BERT = ("anna-0001", 111_111_111), ("bert-0002", 222_222_222)
DIGEST = "d" * 64
KEY = b"k" * 32


def key_of(name: str, night: datetime = NIGHT) -> str:
    return score_key(
        site="ward",
        task="in-hospital-mortality",
        model_digest=DIGEST,
        encounter_id=f"{name}-icu",
        prediction_time=night,
    )


def rows(table: str, *fields: dict[str, object]) -> pl.DataFrame:
    schema = empty_schema(table)
    return pl.DataFrame([{name: item.get(name) for name in schema} for item in fields], schema=schema)


def save(folder: Path, frame: pl.DataFrame, table: str, name: str) -> None:
    manifest = write_table(frame, table, folder / f"{name}.parquet", relative_to=folder)
    write_json(manifest.to_dict(), folder / f"{name}.manifest.json")


def event(name: str, number: int) -> dict[str, object]:
    return {
        "subject_id": number,
        "time": NIGHT - timedelta(hours=1),
        "code": "heart_rate",
        "numeric_value": 80.0,
        "available_time": NIGHT - timedelta(hours=1),
        "encounter_id": f"{name}-icu",
        "source_ref": f"Observation/{name}-hr",
        "derived": False,
    }


def refusal(reference: str | None, line: int) -> dict[str, object]:
    return {
        "stage": "map",
        "reason": "unit.missing",
        "source_file": "Observation.ndjson",
        "source_line": line,
        "source_ref": reference,
        "whole": True,
    }


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    (tmp_path / "source").mkdir()
    return load_settings(
        site={"name": "ward"},
        source={"folder": tmp_path / "source"},
        storage={
            "runs": tmp_path / "runs",
            "models": tmp_path / "models",
            "audit": tmp_path / "audit",
            "database": f"sqlite:///{tmp_path / 'n.sqlite'}",
        },
        destination={"folder": tmp_path / "written"},
    )


@pytest.fixture
def run(settings: Settings) -> Path:
    """One night of two patients, with everything that a night leaves behind."""
    folder = settings.storage.runs / "ward" / "2026-01-19"
    folder.mkdir(parents=True)
    write_json({"partition": "2026-01-19"}, folder / "run.json")
    write_json({"counts": {"scored": 2}}, folder / "summary.json")
    patients = [ANNA, BERT]
    subjects = {
        "patient_id": [name for name, _ in patients],
        "subject_id": [number for _, number in patients],
        "patient_ref": [f"Patient/{name}" for name, _ in patients],
    }
    pl.DataFrame(subjects).write_parquet(folder / "subjects.parquet")
    save(folder, rows("events", *(event(*item) for item in patients)), "events", "events/0000")
    images = []
    for name, number in patients:
        path = f"arrays/{name[:2]}/{name}.npy"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"pixels")
        images.append(
            {
                "image_id": f"{name}-image",
                "subject_id": number,
                "time": NIGHT,
                "available_time": NIGHT,
                "array_path": path,
                "study_uid": f"1.2.3.{number}",
                "source_ref": f"ImagingStudy/{name}-cxr",
                "source_file": "ImagingStudy.ndjson",
                "source_line": 1,
            }
        )
    pl.DataFrame(images).write_parquet(folder / "images.parquet")
    save(
        folder,
        rows(
            "quarantine",
            refusal("Observation/anna-0001-hr", 1),
            refusal("Observation/bert-0002-hr", 2),
            refusal("Observation/whose-is-this", 3),
            refusal(None, 4),
        ),
        "quarantine",
        "quarantine/map-0000",
    )
    scores = [
        {"score_key": key_of(name), "subject_id": number, "encounter_id": f"{name}-icu"}
        for name, number in patients
    ]
    (folder / "scores").mkdir()
    pl.DataFrame(scores).write_parquet(folder / "scores" / "0000.parquet")
    (folder / "report").mkdir()
    listed = "".join(f"<tr><th>{name}-icu</th></tr>\n" for name, _ in patients)
    (folder / "report" / "patients.html").write_text(f"<table>\n{listed}</table>\n", encoding="utf-8")
    lines = [
        json.dumps(
            {"resourceType": "Observation", "id": f"{name}-hr", "subject": {"reference": f"Patient/{name}"}}
        )
        for name, _ in patients
    ]
    (folder / "downloads").mkdir()
    (folder / "downloads" / "Observation.ndjson.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    written = settings.destination.folder / "ward"
    written.mkdir(parents=True)
    assessments = [
        json.dumps(
            {
                "resourceType": "RiskAssessment",
                "id": key_of(name),
                "subject": {"reference": f"Patient/{name}"},
            }
        )
        for name, _ in patients
    ]
    (written / "RiskAssessment.ndjson").write_text("\n".join(assessments) + "\n", encoding="utf-8")
    targets = [{"reference": f"RiskAssessment/{key_of(name)}"} for name, _ in patients]
    (written / "Provenance.ndjson").write_text(
        json.dumps({"resourceType": "Provenance", "id": "p1", "target": targets}) + "\n", encoding="utf-8"
    )
    ledger = Ledger.open(settings.storage.database)
    items = [(("RiskAssessment", key_of(name)), "h", DIGEST) for name, _ in patients]
    # A night whose run folder is gone by retention.
    earlier = NIGHT - timedelta(days=3)
    items.append((("RiskAssessment", key_of(ANNA[0], earlier)), "h", DIGEST))
    ledger.enqueue("ndjson:x", items, partition="2026-01-19", run="2026-01-19", now=NOW)
    ledger.close()
    log = AuditLog(settings.storage.audit, Identity(system="s", value="v"), key=KEY)
    plain = AuditLog(settings.storage.audit, Identity(system="s", value="v"), patients="plain")
    for name, _ in patients:
        for one in (log, plain):
            one(interaction(f"Patient/{name}", ""))
            one(interaction("Observation", f"patient={name}&_count=5"))
    return folder


def interaction(path: str, query: str) -> Interaction:
    return Interaction(
        request_id="r",
        method="GET",
        path=f"/fhir/{path}",
        query=query,
        status=200,
        error=None,
        started=NOW,
        seconds=0.1,
        attempt=1,
        bytes_received=1,
        resource_type=path.split("/")[0],
    )


def ledger_ids(settings: Settings) -> set[str]:
    engine = open_engine(settings.storage.database)
    with engine.connect() as connection:
        found = set(connection.execute(select(LedgerRow.resource_id)).scalars())
    engine.dispose()
    return found


def everything(root: Path) -> str:
    """Return all that is kept, as text: written apart from the code under test."""
    words = []
    for path in root.rglob("*"):
        if path.suffix == ".parquet":
            words.append(pl.read_parquet(path).write_ndjson())
        elif path.suffix == ".gz":
            words.append(gzip.decompress(path.read_bytes()).decode())
        elif path.is_file():
            words.append(path.read_bytes().decode("utf-8", "replace"))
        words.append(path.name)
    return "\n".join(words)


def digest_of(name: str) -> str:
    return "hmac-" + hmac.new(KEY, name.encode(), hashlib.sha256).hexdigest()[:32]


def test_nothing_of_the_patient_stays_and_nothing_of_another_goes(
    settings: Settings, run: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    assert all(word in before for word in (ANNA[0], str(ANNA[1]), key_of(ANNA[0]), digest_of(ANNA[0])))
    erased = forget(settings, patient=f"Patient/{ANNA[0]}", audit_key=KEY, now=NOW)
    after = everything(tmp_path)
    for word in (ANNA[0], str(ANNA[1]), key_of(ANNA[0]), digest_of(ANNA[0]), "anna"):
        assert word not in after
    for word in (BERT[0], str(BERT[1]), key_of(BERT[0]), digest_of(BERT[0])):
        assert word in after
    assert (erased.known, erased.arrays, erased.ledger_rows, erased.audit_events) == (True, 1, 2, 4)
    assert erased.rows == 5  # subject, event, image, refusal, score
    assert erased.lines == 4  # download, RiskAssessment, Provenance, list of patients
    assert ledger_ids(settings) == {key_of(BERT[0])}
    assert list((run / "arrays").rglob("*.npy")) == [run / "arrays" / "be" / f"{BERT[0]}.npy"]


def test_tables_that_were_rewritten_still_match_their_manifests(settings: Settings, run: Path) -> None:
    forget(settings, patient=ANNA[0], audit_key=KEY, now=NOW)
    for path in run.rglob("*.manifest.json"):
        manifest = Manifest.from_dict(json.loads(path.read_text("utf-8")))
        read_table(manifest, folder=run)


def test_a_provenance_of_many_scores_loses_only_the_patients(settings: Settings, run: Path) -> None:
    forget(settings, patient=ANNA[0], audit_key=KEY, now=NOW)
    [line] = (settings.destination.folder / "ward" / "Provenance.ndjson").read_text("utf-8").splitlines()
    assert json.loads(line)["target"] == [{"reference": f"RiskAssessment/{key_of(BERT[0])}"}]


def test_refused_resources_of_unknown_owners_lose_their_reference_and_keep_their_reason(
    settings: Settings, run: Path
) -> None:
    erased = forget(settings, patient=ANNA[0], audit_key=KEY, now=NOW)
    left = pl.read_parquet(run / "quarantine" / "map-0000.parquet")
    assert left["reason"].to_list() == ["unit.missing"] * 3
    assert left["source_ref"].to_list() == ["Observation/bert-0002-hr", None, None]
    assert left["source_line"].to_list() == [2, None, None]
    assert erased.quarantine_blanked == 2


def test_audit_events_stay_as_events(settings: Settings, run: Path) -> None:
    [path] = settings.storage.audit.glob("*.jsonl")
    count = len(path.read_text("utf-8").splitlines())
    forget(settings, patient=ANNA[0], audit_key=KEY, now=NOW)
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(events) == count and all(event["resourceType"] == "AuditEvent" for event in events)
    assert json.dumps(events).count("Patient/forgotten") >= 2
    assert path.stat().st_mode & 0o077 == 0


def test_an_array_that_two_patients_share_stays(settings: Settings, run: Path) -> None:
    images = pl.read_parquet(run / "images.parquet")
    shared = images.with_columns(pl.lit(images["array_path"][0]).alias("array_path"))
    replace_table(shared, run / "images.parquet")
    forget(settings, patient=ANNA[0], audit_key=KEY, now=NOW)
    assert (run / images["array_path"][0]).is_file()


def test_a_trace_in_a_place_that_is_not_cleaned_is_reported_without_the_name(
    settings: Settings, run: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "task.log").write_text(f"something wrote {ANNA[0]} here\n", encoding="utf-8")
    with pytest.raises(ForgetError, match="still named in 1 place") as caught:
        forget(settings, patient=ANNA[0], audit_key=KEY, scan=[logs], now=NOW)
    assert "task.log" in str(caught.value) and ANNA[0] not in str(caught.value)


def test_without_the_key_digests_stay_unlinkable_and_the_rest_goes(settings: Settings, run: Path) -> None:
    erased = forget(settings, patient=ANNA[0], now=NOW)
    assert erased.audit_events == 2  # the two with a plain name


def test_the_record_names_nobody(settings: Settings, run: Path) -> None:
    erased = forget(settings, patient=ANNA[0], audit_key=KEY, now=NOW)
    text = Path(erased.record).read_text("utf-8")
    assert ANNA[0] not in text and json.loads(text)["rows"] == 5


def test_a_patient_nobody_knows_changes_nothing(settings: Settings, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    erased = forget(settings, patient="nobody-9999", audit_key=KEY, now=NOW)
    assert not erased.known and erased.rows == erased.lines == erased.ledger_rows == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_running_night_is_waited_for(settings: Settings, run: Path) -> None:
    (run / "summary.json").unlink()
    os.utime(run / "run.json", (NOW.timestamp(), NOW.timestamp()))
    with pytest.raises(ForgetError, match="2026-01-19 is running"):
        forget(settings, patient=ANNA[0], now=NOW)


def test_encounters_known_from_elsewhere_find_scores_of_nights_that_are_gone(
    settings: Settings, run: Path
) -> None:
    for path in run.rglob("*.parquet"):
        path.unlink()
    erased = forget(settings, patient=ANNA[0], encounters=["anna-0001-icu"], audit_key=KEY, now=NOW)
    assert erased.ledger_rows == 2


def test_short_ids_count_with_their_type_only(tmp_path: Path) -> None:
    trace = Trace(subject_ids={7}, references={"Patient/12"})
    (tmp_path / "a.json").write_text('{"rows": 12, "n": 7}', encoding="utf-8")
    assert search([tmp_path], trace).found == ()
    (tmp_path / "b.json").write_text('{"subject": "Patient/12"}', encoding="utf-8")
    assert search([tmp_path], trace).found == (str(tmp_path / "b.json"),)


def test_names_are_gathered_from_tables(run: Path) -> None:
    trace = collect([run], patient=ANNA[0])
    assert trace.subject_ids == {ANNA[1]}
    assert trace.score_keys == {key_of(ANNA[0])}
    assert trace.references == {"Patient/anna-0001", "Observation/anna-0001-hr", "ImagingStudy/anna-0001-cxr"}


def test_the_command_asks_first(settings: Settings, run: Path, tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text(
        f'[site]\nname = "ward"\n[source]\nfolder = "{tmp_path / "source"}"\n[storage]\n'
        f'runs = "{settings.storage.runs}"\naudit = "{settings.storage.audit}"\n'
        f'models = "{settings.storage.models}"\ndatabase = "{settings.storage.database}"\n'
        f'[destination]\nfolder = "{settings.destination.folder}"\n',
        encoding="utf-8",
    )
    options = ["--patient", ANNA[0], "--config", str(config)]
    assert CliRunner().invoke(app, options, input="n\n").exit_code == 1
    assert ANNA[0] in everything(settings.storage.runs)
    done = CliRunner().invoke(app, [*options, "--yes"])
    assert done.exit_code == 0 and "nothing left" in done.output and ANNA[0] not in done.output
