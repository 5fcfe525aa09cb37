"""The part of Airflow's REST API that a night needs: start a run, wait for it, look at its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

import httpx

from deploy.errors import DeployError, ServerError

FINISHED = frozenset({"success", "failed"})


class AirflowApi:
    """A client of one api-server.

    Parameters
    ----------
    base_url, user, password
        As :class:`deploy.airflow.split.SplitAirflow` has them, or those of the site.
    """

    def __init__(self, base_url: str, *, user: str, password: str) -> None:
        self._client = httpx.Client(base_url=base_url, timeout=60, trust_env=False)
        answer = self._client.post("/auth/token", json={"username": user, "password": password})
        if answer.status_code >= 300:
            raise ServerError(f"Airflow refused the log-in of {user} (status {answer.status_code})")
        self.token: str = answer.json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {self.token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the JSON answer of ``/api/v2`` + path.

        Raises
        ------
        ServerError
            With status and Airflow's own words.
        """
        answer = self._client.request(method, f"/api/v2{path}", **options)
        if answer.status_code >= 300:
            raise ServerError(
                f"{method} {path.split('?')[0]}: status {answer.status_code}: {answer.text[:500]}"
            )
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def wait_for_dag(
        self, dag_id: str, *, timeout: float = 60, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Wait until the dag-processor has read a DAG, and let its schedule run.

        Raises
        ------
        ServerError
            With the import error, or after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            errors = self.call("GET", "/importErrors")["import_errors"]
            if errors:
                raise ServerError(f"{errors[0]['filename']}: {errors[0]['stack_trace'][-1500:]}")
            known = [item["dag_id"] for item in self.call("GET", "/dags")["dags"]]
            if dag_id in known:
                return
            sleep(0.5)
        raise ServerError(f"Airflow did not read {dag_id} in {timeout:.0f} s")

    def unpause(self, dag_id: str) -> None:
        """Let runs of a DAG start."""
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: dict[str, Any], *, partition: str | None = None) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": conf, "partition_key": partition}
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def backfill(self, dag_id: str, first: datetime, last: datetime, *, again: bool = False) -> int:
        """Start a backfill, one night after another, and return its id.

        Parameters
        ----------
        again
            Whether nights that succeeded before run again.
        """
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "reprocess_behavior": "completed" if again else "failed",
            "max_active_runs": 1,
        }
        return int(self.call("POST", "/backfills", json=body)["id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG."""
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> str:
        """Wait for the end of a run and return its state; a question that gets no answer is asked again.

        Raises
        ------
        DeployError
            If it does not end in ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while (state := self._state_or_unknown(dag_id, run_id)) not in FINISHED:
            if time.monotonic() > end:
                raise DeployError(
                    f"{dag_id} was still {state} after {timeout:.0f} s: {self.tasks(dag_id, run_id)}"
                )
            sleep(0.5)
        return state

    def _state_or_unknown(self, dag_id: str, run_id: str) -> str:
        try:
            return self.state(dag_id, run_id)
        except httpx.TransportError:  # an api-server that is busy or starts again does not end the night
            return "unknown"

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the state of each task instance, mapped ones with their index."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {
            item["task_id"] if item["map_index"] < 0 else f"{item['task_id']}[{item['map_index']}]": item[
                "state"
            ]
            for item in found
        }
