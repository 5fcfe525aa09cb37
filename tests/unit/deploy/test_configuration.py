"""The settings as text: the page is current, and a proposed site file loads and says what the server said."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from reading_server import Answer, Seen, fhir, serving
from test_doctor import statement
from typer.testing import CliRunner

from deploy.command_line.init import app
from deploy.configuration.fields import sections
from deploy.configuration.page import TARGET, render_page
from deploy.errors import SettingsError
from deploy.night.connections import secret
from deploy.settings import load_settings


def test_the_configuration_page_is_current() -> None:
    assert TARGET.read_text("utf-8") == render_page(), "run `make reference`"


def test_every_field_has_a_description() -> None:
    bare = [
        f"{item.section}.{item.name}" for part in sections() for item in part.settings if not item.description
    ]
    assert bare == []


def test_environment_variables_of_the_page_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {item.variable: item for part in sections() for item in part.settings}
    assert variables["NIGHTINGALE_SOURCE__AUTH__CLIENT_ID"].name == "client_id"
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    monkeypatch.setenv("NIGHTINGALE_SOURCE__AUTH__CLIENT_ID", "night")
    assert load_settings(source={"folder": tmp_path}).source.auth.client_id == "night"


def answers(*, smart: bool = False, endpoint: bool = False, **capable: Any) -> Any:
    def answer(seen: Seen) -> Answer:
        if seen.target.endswith("/metadata"):
            return fhir(statement(**capable))
        if "smart-configuration" in seen.target and smart:
            return fhir({"token_endpoint": "https://x/token"})
        if "/Endpoint" in seen.target and endpoint:
            found = {
                "resourceType": "Endpoint",
                "connectionType": {"code": "dicom-wado-rs"},
                "address": "https://pacs.example/dicom-web/studies/1.2.3",
            }
            return fhir({"resourceType": "Bundle", "entry": [{"resource": found}]})
        return fhir({"resourceType": "OperationOutcome"}, 404)

    return answer


def test_init_writes_what_the_server_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTINGALE_CONFIG", "")
    out = tmp_path / "site.toml"
    with serving(answers(smart=True, endpoint=True)) as server:
        options = [
            "--fhir",
            server.base,
            "--out",
            str(out),
            "--name",
            "st-mary",
            "--time-zone",
            "Europe/Vienna",
        ]
        result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    settings = load_settings(out)
    assert settings.site.name == "st-mary" and settings.site.time_zone == "Europe/Vienna"
    assert settings.source.kind == "search" and settings.source.base_url == server.base
    assert settings.source.auth.kind == "smart" and settings.destination.kind == "fhir"
    assert settings.images.kind == "dicomweb"
    assert settings.images.base_url == "https://pacs.example/dicom-web"
    text = out.read_text("utf-8")
    assert "# > RiskAssessment can be written by update." in text
    assert all(f"{item.name} = " in text for part in sections() for item in part.settings)


def test_init_falls_back_to_files_where_nothing_can_be_written(tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    with serving(answers(writes=False)) as server:
        assert CliRunner().invoke(app, ["--fhir", server.base, "--out", str(out)]).exit_code == 0
    assert tomllib.loads(out.read_text("utf-8"))["destination"]["kind"] == "ndjson"


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    out.write_text("mine", encoding="utf-8")
    result = CliRunner().invoke(app, ["--fhir", "http://127.0.0.1:9/fhir", "--out", str(out)])
    assert result.exit_code == 1 and out.read_text("utf-8") == "mine"


def test_init_says_when_there_is_no_fhir_server(tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    result = CliRunner().invoke(app, ["--fhir", "http://127.0.0.1:9/fhir", "--out", str(out)])
    assert result.exit_code == 1 and not out.exists()


def test_a_secret_may_be_an_airflow_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WARD_FHIR", '{"conn_type": "generic", "password": "a-long-secret"}')
    assert secret(None, "source.auth.token_env", connection="ward_fhir") == "a-long-secret"
    with pytest.raises(SettingsError, match="no connection 'nowhere'"):
        secret(None, "source.auth.token_env", connection="nowhere")
