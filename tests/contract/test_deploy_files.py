"""Containers and manifests: hardened, without secrets, and clean under the tools made for them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
CONTAINERS, HELM = PROJECT / "deploy" / "containers", PROJECT / "deploy" / "helm"
TOOLS = Path(os.environ.get("NIGHTINGALE_LINT_TOOLS", PROJECT / ".venv" / "lint"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((CONTAINERS / "compose.yaml").read_text("utf-8")))


def enter(folder: Path, show: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(CONTAINERS / "entrypoint.sh"), "sh", "-c", f'printf %s "${{{show}-unset}}"']
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)


def test_a_secret_file_becomes_a_variable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a 'b' $(c)\n", encoding="utf-8")
    done = enter(tmp_path, "NIGHTINGALE_TOKEN", NIGHTINGALE_TOKEN_FILE=str(tmp_path / "token"))
    assert (done.returncode, done.stdout) == (0, "a 'b' $(c)")


def test_a_variable_that_is_set_wins_over_its_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("file", encoding="utf-8")
    done = enter(
        tmp_path, "AIRFLOW__CORE__X", AIRFLOW__CORE__X="mine", AIRFLOW__CORE__X_FILE=str(tmp_path / "x")
    )
    assert done.stdout == "mine"


def test_a_secret_file_that_is_not_there_stops_the_container(tmp_path: Path) -> None:
    done = enter(tmp_path, "HOME", NIGHTINGALE_TOKEN_FILE="/not/there")
    assert done.returncode == 1 and "NIGHTINGALE_TOKEN_FILE" in done.stderr


def test_settings_that_are_files_themselves_are_left_alone(tmp_path: Path) -> None:
    named = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": "/x"}
    done = enter(tmp_path, "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS", **named)
    assert done.stdout == "unset"


def test_make_secrets_makes_what_compose_names_and_overwrites_nothing(
    tmp_path: Path, compose: dict[str, Any]
) -> None:
    folder = tmp_path / "secrets"
    command = [str(CONTAINERS / "make_secrets.sh"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    named = {Path(item["file"]).name for item in compose["secrets"].values()}
    assert named <= {path.name for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    first = (folder / "jwt_key").read_bytes()
    assert len(first) >= 64
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert (folder / "jwt_key").read_bytes() == first


def test_every_container_is_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if not service.get("profiles"):  # the demo's servers are other people's images
            assert service["read_only"] is True, name
            assert str(service["user"]).split(":")[0] not in {"0", "root", ""}, name
    assert compose["networks"]["inside"] == {"internal": True}


def test_images_of_others_are_pinned_by_digest(compose: dict[str, Any]) -> None:
    pinned = re.compile(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}")
    named = {service["image"] for service in compose["services"].values() if "image" in service}
    defaults = [re.fullmatch(r"\$\{\w+:-(.*)\}", image)[1] for image in named]  # type: ignore[index]
    others = sorted(image for image in defaults if not image.startswith("nightingale:"))
    assert [image.split(":")[0] for image in others] == [
        "hapiproject/hapi", "orthancteam/orthanc", "postgres", "redis",
    ]  # fmt: skip
    for path in (CONTAINERS / "Dockerfile", PROJECT / ".devcontainer" / "Dockerfile"):
        text = path.read_text("utf-8")
        others += re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE)
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert len(others) == 6 and all(pinned.fullmatch(image) for image in others), others
    base = compose["services"]["scheduler"]["build"]["args"]["PYTHON_IMAGE"]
    assert base == f"${{PYTHON_IMAGE:-{others[4]}}}"


def test_only_the_api_server_listens_outside_and_on_loopback(compose: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert all(port.startswith("127.0.0.1:") for found in ports.values() for port in found)
    published = {name for name, found in ports.items() if found}
    assert published == {"api-server", "hapi", "orthanc"}


def test_no_secret_stands_in_compose(compose: dict[str, Any]) -> None:
    secretive = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|CONN|URL|DATABASE|BACKEND)(_ASYNC)?$")
    for name, service in compose["services"].items():
        bare = [key for key in service.get("environment", {}) if secretive.search(key)]
        assert bare == ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] or bare == [], name


def test_only_prepare_holds_the_owner_of_the_tables(compose: dict[str, Any]) -> None:
    holders = {
        name for name, item in compose["services"].items() if "nightingale_owner" in item.get("secrets", [])
    }
    assert holders == {"prepare"}


def test_pods_are_hardened_and_hold_no_secret() -> None:
    pod = yaml.safe_load((HELM / "gpu_pod.yaml").read_text("utf-8"))["spec"]
    values = yaml.safe_load((HELM / "values.yaml").read_text("utf-8"))
    for context in (pod["securityContext"], values["securityContexts"]["pod"]):
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for context in (pod["containers"][0]["securityContext"], values["securityContexts"]["containers"]):
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert all(set(item) == {"envName", "secretName", "secretKey"} for item in values["secret"])


def test_network_policies_begin_with_nothing_allowed() -> None:
    [deny, *_] = yaml.safe_load_all((HELM / "manifests" / "network_policy.yaml").read_text("utf-8"))
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_containers_lock_agrees_with_the_projects() -> None:
    def versions(path: Path) -> dict[str, str]:
        lines = path.read_text("utf-8").splitlines()
        return dict(line.split(" ")[0].split("==") for line in lines if re.match(r"[a-z0-9]", line))

    project = versions(PROJECT / "requirements.lock")
    containers = versions(CONTAINERS / "requirements.lock")
    different = {name for name, version in project.items() if containers.get(name) != version}
    assert different == set(), "run `make lock-containers`"
    assert "celery" in containers and not containers["celery"].startswith("5.7")


def test_the_tools_made_for_them_find_nothing() -> None:
    if not (TOOLS / "bin" / "hadolint").is_file():
        pytest.skip(f"no lint tools at {TOOLS}; `make lint-deploy` installs them")
    done = subprocess.run(
        [str(CONTAINERS / "lint.sh"), str(TOOLS)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
