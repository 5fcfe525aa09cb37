# ruff: noqa: SIM117 - a server, its client and what it must raise read better apart
"""What a hospital's network adds: its own authority, a proxy, few connections, files side by side."""

from __future__ import annotations

import ipaddress
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from reading_server import Answer, Seen, VirtualClock, fhir, serving

from fhir_adapter.errors import TemporaryError
from fhir_adapter.sources import BulkSource
from fhir_adapter.transport import RetryPolicy, Transport


def authority(folder: Path) -> tuple[Path, Path]:
    """Write a hospital's own certificate for 127.0.0.1 and its key; it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ward authority")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "ca.pem", folder / "key.pem"


def test_the_hospitals_own_authority_is_trusted_where_the_site_names_it_and_nowhere_else(
    tmp_path: Path,
) -> None:
    certificate, key = authority(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/fhir+json")
            self.end_headers()
            self.wfile.write(b'{"ok": true}')

        def log_message(self, *arguments: object) -> None:
            del arguments

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        base = f"https://127.0.0.1:{server.server_address[1]}/fhir"
        retry = RetryPolicy(attempts=1)
        with Transport(base, ca_bundle=certificate, retry=retry) as http:
            assert http.get_json("metadata") == {"ok": True}
        with Transport(base, retry=retry) as http, pytest.raises(TemporaryError, match="ConnectError"):
            http.get_json("metadata")
        server.shutdown()


def test_the_sites_proxy_is_used_and_the_environments_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving(lambda request: fhir({"ok": 1})) as server:
        with Transport(server.base, clock=VirtualClock()) as http:
            assert http.get_json("metadata") == {"ok": 1}
        proxy = server.base.removesuffix("/fhir")
        with Transport("http://ehr.invalid/fhir", proxy=proxy, clock=VirtualClock()) as http:
            assert http.get_json("metadata") == {"ok": 1}
        assert [seen.target for seen in server.seen] == [
            "/fhir/metadata",
            "http://ehr.invalid/fhir/metadata",
        ]


def test_no_more_connections_are_open_than_allowed() -> None:
    lock = threading.Lock()
    active: list[int] = [0]
    most: list[int] = [0]

    def answer(request: Seen) -> Answer:
        del request
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.03)
        with lock:
            active[0] -= 1
        return fhir({})

    with serving(answer) as server, Transport(server.base, connections=2) as http:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: http.get_json(f"Patient/{number}"), range(16)))
    assert most[0] == 2


def test_files_of_an_export_are_fetched_side_by_side(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=20)

    def answer(request: Seen) -> Answer:
        path = urlsplit(request.target).path
        base = f"http://{request.headers['host']}/fhir"
        if path.endswith("$export"):
            return Answer(202, headers={"Content-Location": f"{base}/job"})
        if path.endswith("/job"):
            files = [{"type": "Patient", "url": f"{base}/file/{number}"} for number in range(2)]
            manifest = {"transactionTime": "2026-01-01T00:00:00Z", "output": files}
            return fhir(manifest) if request.method == "GET" else Answer(202)
        both.wait()  # one alone would wait for ever
        return Answer(200, b'{"resourceType":"Patient","id":"a"}\n', {"Content-Type": "application/ndjson"})

    with serving(answer) as server, Transport(server.base, clock=VirtualClock()) as http:
        source = BulkSource(http, folder=tmp_path, resource_types=["Patient"], downloads=2)
        assert len(source.plan(["Patient"])) == 2


def test_an_export_file_that_expired_starts_a_new_export(tmp_path: Path) -> None:
    jobs = [0]

    def answer(request: Seen) -> Answer:
        path = urlsplit(request.target).path
        base = f"http://{request.headers['host']}/fhir"
        if path.endswith("$export"):
            jobs[0] += 1
            return Answer(202, headers={"Content-Location": f"{base}/job/{jobs[0]}"})
        if "/job/" in path:
            output = [{"type": "Patient", "url": f"{base}/file/{path[-1]}"}]
            manifest = {"transactionTime": "2026-01-01T00:00:00Z", "output": output}
            return fhir(manifest) if request.method == "GET" else Answer(202)
        return Answer(410) if path.endswith("1") else Answer(200, b'{"resourceType":"Patient"}\n')

    with serving(answer) as server, Transport(server.base, clock=VirtualClock()) as http:
        source = BulkSource(http, folder=tmp_path, resource_types=["Patient"])
        assert len(source.plan(["Patient"])) == 1
    assert jobs == [2]
