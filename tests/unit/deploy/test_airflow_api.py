"""The client of Airflow's REST API waits on, though the api-server does not answer for a while."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.airflow.api import AirflowApi
from deploy.errors import DeployError


def test_a_lost_connection_does_not_end_the_waiting() -> None:
    answers: list[str | None] = ["running", None, "success"]  # None: the connection breaks

    class Handler(BaseHTTPRequestHandler):
        def reply(self, body: object) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            self.reply({"access_token": "t"})

        def do_GET(self) -> None:
            if self.path.endswith("/taskInstances"):
                self.reply({"task_instances": []})
            elif (state := answers.pop(0) if answers else "running") is not None:
                self.reply({"state": state})

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with AirflowApi(url, user="nightingale", password="x") as api:
            assert api.wait("night", "run", timeout=30, sleep=lambda _: None) == "success"
            assert answers == []
            with pytest.raises(DeployError, match="still running after"):
                api.wait("night", "run", timeout=-1, sleep=lambda _: None)
        server.shutdown()
