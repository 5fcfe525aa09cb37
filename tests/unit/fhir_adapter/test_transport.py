# ruff: noqa: SIM117 - a server, its client and what it must raise read better apart
"""The transport against a real socket: retries, origins, limits, and what it never says."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from reading_server import Answer, Seen, VirtualClock, fhir, serving

from fhir_adapter.errors import (
    AuthorizationError,
    ConnectionLostError,
    ContentError,
    FatalError,
    OriginError,
    TemporaryError,
)
from fhir_adapter.smart import BearerToken
from fhir_adapter.transport import Interaction, RetryPolicy, Timeout, Transport, origin, same_origin

SECRET = "Patient/very-private-4711?name=Meier"


def scripted(*answers: Answer) -> Callable[[Seen], Answer]:
    queue = list(answers)

    def answer(request: Seen) -> Answer:
        del request
        return queue.pop(0) if len(queue) > 1 else queue[0]

    return answer


def client(base: str, clock: VirtualClock, **options: object) -> Transport:
    return Transport(base, clock=clock, draw=lambda: 0.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_fault_is_waited_out_with_growing_pauses(status: int) -> None:
    clock = VirtualClock()
    with (
        serving(scripted(Answer(status), Answer(status), fhir({"ok": 1}))) as server,
        client(server.base, clock) as http,
    ):
        assert http.get_json("Patient") == {"ok": 1}
    assert clock.slept == [1.0, 2.0]
    assert len({seen.headers["x-request-id"] for seen in server.seen}) == 3


@pytest.mark.parametrize(
    ("header", "waited"), [("7", 7.0), ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0), ("soon", 1.0)]
)
def test_retry_after_wins_over_the_backoff(header: str, waited: float) -> None:
    clock = VirtualClock()
    with (
        serving(scripted(Answer(429, headers={"Retry-After": header}), fhir({}))) as server,
        client(server.base, clock) as http,
    ):
        http.get_json("Patient")
    assert clock.slept == [waited]


def test_a_date_to_come_back_is_meant_by_the_servers_clock() -> None:
    clock = VirtualClock()
    ahead = {"Date": "Fri, 02 Jan 2026 07:00:00 GMT", "Retry-After": "Fri, 02 Jan 2026 07:00:20 GMT"}
    with (
        serving(scripted(Answer(503, headers=ahead), fhir({}))) as server,
        client(server.base, clock) as http,
    ):
        http.get_json("Patient")
    assert clock.slept == [20.0]


def test_a_page_that_is_no_json_is_fetched_once_more() -> None:
    broken = Answer(200, b'{"resourceType": "Bund', {"Content-Type": "application/fhir+json"})
    with serving(scripted(broken, fhir({"a": 1}))) as server, client(server.base, VirtualClock()) as http:
        assert http.get_json("Patient") == {"a": 1}
    with serving(scripted(broken)) as server, client(server.base, VirtualClock()) as http:
        with pytest.raises(ContentError, match="not JSON"):
            http.get_json("Patient")
        assert len(server.seen) == 2


def test_credentials_do_not_travel_over_plain_http() -> None:
    with pytest.raises(OriginError, match="plain http"):
        Transport("http://ehr.example/fhir", auth=BearerToken("secret"))
    Transport("https://ehr.example/fhir", auth=BearerToken("secret")).close()


def test_five_hours_of_retry_after_end_the_request_and_are_handed_on() -> None:
    clock = VirtualClock()
    with (
        serving(scripted(Answer(503, headers={"Retry-After": "18000"}))) as server,
        client(server.base, clock) as http,
        pytest.raises(TemporaryError) as error,
    ):
        http.get_json("Patient")
    assert error.value.retry_after == 18000
    assert clock.slept == []


def test_a_storm_ends_after_the_last_try() -> None:
    clock = VirtualClock()
    with (
        serving(scripted(Answer(503))) as server,
        client(server.base, clock, retry=RetryPolicy(attempts=3)) as http,
    ):
        with pytest.raises(TemporaryError, match="GET Patient: status 503"):
            http.get_json("Patient")
    assert len(server.seen) == 3


def test_a_connection_cut_in_the_body_is_tried_again() -> None:
    whole = fhir({"resourceType": "Patient"})
    cut = Answer(200, whole.body, whole.headers, cut=5)
    with serving(scripted(cut, whole)) as server, client(server.base, VirtualClock()) as http:
        assert http.get_json("Patient")["resourceType"] == "Patient"


def test_a_cut_gzip_stream_is_tried_again() -> None:
    body = gzip.compress(b'{"a": 1}' * 100)
    broken = Answer(200, body[:-12], {"Content-Type": "application/fhir+json", "Content-Encoding": "gzip"})
    with serving(scripted(broken, fhir({"a": 1}))) as server, client(server.base, VirtualClock()) as http:
        try:
            http.get_json("Patient")
        except ContentError:
            pass  # zlib may give what it has; then the JSON is refused, never taken as complete
        else:
            assert len(server.seen) == 2


def test_a_post_whose_answer_was_lost_is_not_sent_again() -> None:
    cut = Answer(200, b"x" * 100, cut=1)
    with serving(scripted(cut)) as server, client(server.base, VirtualClock()) as http:
        with pytest.raises(ConnectionLostError):
            http.request("POST", "", json={})
        assert len(server.seen) == 1
        with pytest.raises(ConnectionLostError):
            http.request("POST", "", json={}, idempotent=True)
        assert len(server.seen) == 6


def test_nothing_listening_is_temporary_and_tried_again_even_for_a_post() -> None:
    clock = VirtualClock()
    with serving(scripted(fhir({}))) as server:
        base = server.base
    with client(base, clock, retry=RetryPolicy(attempts=3)) as http, pytest.raises(TemporaryError):
        http.request("POST", "", json={})
    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"}),
        Answer(200, b"  <!DOCTYPE html><p>login", {"Content-Type": "application/fhir+json"}),
    ],
)
def test_a_login_page_with_status_200_is_refused(answer: Answer) -> None:
    with serving(scripted(answer)) as server, client(server.base, VirtualClock()) as http:
        with pytest.raises(ContentError, match="HTML"):
            http.get_json("Patient")


def test_an_answer_over_the_limit_is_cut_off() -> None:
    bomb = gzip.compress(b"[" + b" " * 30_000_000 + b"]")
    answer = Answer(200, bomb, {"Content-Type": "application/fhir+json", "Content-Encoding": "gzip"})
    with (
        serving(scripted(answer)) as server,
        client(server.base, VirtualClock(), max_bytes=1_000_000) as http,
    ):
        with pytest.raises(ContentError, match="exceeds"):
            http.get_json("Patient")


def test_a_dripping_server_meets_the_total_limit() -> None:
    clock = VirtualClock()
    read = clock.monotonic

    def later() -> float:
        clock.elapsed += 400
        return read()

    clock.monotonic = later  # type: ignore[method-assign]
    with serving(scripted(fhir({}))) as server:
        with client(server.base, clock, timeout=Timeout(total=300), retry=RetryPolicy(attempts=1)) as http:
            with pytest.raises(ConnectionLostError, match="within 300 s"):
                http.get_json("Patient")


def test_the_token_is_renewed_once_on_401_without_costing_a_try() -> None:
    class Counting(BearerToken):
        renewals = 0

        def renew(self) -> bool:
            self.renewals += 1
            return True

    auth = Counting("t")
    with (
        serving(scripted(Answer(401), fhir({}))) as server,
        client(server.base, VirtualClock(), auth=auth) as http,
    ):
        http.get_json("Patient")
    assert auth.renewals == 1
    with serving(scripted(Answer(401))) as server, client(server.base, VirtualClock(), auth=auth) as http:
        with pytest.raises(AuthorizationError):
            http.get_json("Patient")
    assert len(server.seen) == 2


def test_the_token_and_vendor_headers_never_leave_the_origin() -> None:
    with serving(scripted(fhir({}))) as other, serving(scripted(fhir({}))) as home:
        with client(
            home.base,
            VirtualClock(),
            auth=BearerToken("secret"),
            extra_headers={"Epic-Client-ID": "abc"},
            allowed_origins=[other.base],
        ) as http:
            http.get_json("Patient")
            http.get_json(other.base + "/file")
            http.get_json("Patient", authenticate=False)
        assert home.seen[0].headers["authorization"] == "Bearer secret"
        assert home.seen[0].headers["epic-client-id"] == "abc"
        assert "authorization" not in home.seen[1].headers
        assert not {"authorization", "epic-client-id"} & set(other.seen[0].headers)


def test_links_to_other_hosts_are_refused_before_anything_is_sent() -> None:
    with serving(scripted(fhir({}))) as other, serving(scripted(fhir({}))) as home:
        with client(home.base, VirtualClock(), auth=BearerToken("secret")) as http:
            port = home.base.split(":")[2].split("/")[0]
            for link in (
                other.base,
                f"http://127.0.0.1:{port}@evil.example/fhir",
                f"http://127.0.0.1:{port}.evil.example/fhir",
                f"https://127.0.0.1:{port}/fhir",
                "file:///etc/passwd",
                "data:text/plain,x",
                "http://169.254.169.254/latest/meta-data",
            ):
                with pytest.raises(OriginError):
                    http.request("GET", link)
        assert home.seen == other.seen == []


@pytest.mark.parametrize("path", ["../admin", "a/../../b", "%2e%2e/admin", "a/%2E%2E%2fb", "..\\x"])
def test_paths_do_not_climb_out_of_the_base(path: str) -> None:
    with client("http://127.0.0.1:9/fhir", VirtualClock()) as http, pytest.raises(OriginError):
        http.request("GET", path)


def test_a_redirect_is_followed_at_home_only() -> None:
    with serving(scripted(fhir({}))) as other:
        with (
            serving(scripted(Answer(302, headers={"Location": "/fhir/there"}), fhir({"ok": 1}))) as home,
            client(home.base, VirtualClock()) as http,
        ):
            assert http.get_json("Patient") == {"ok": 1}
            assert home.seen[1].target == "/fhir/there"
        with serving(scripted(Answer(302, headers={"Location": other.base}))) as home:
            with client(home.base, VirtualClock(), auth=BearerToken("x")) as http, pytest.raises(OriginError):
                http.get_json("Patient")
        assert other.seen == []
    with serving(scripted(Answer(302, headers={"Location": "/fhir/again"}))) as home:
        with client(home.base, VirtualClock()) as http, pytest.raises(FatalError, match="too many redirects"):
            http.get_json("Patient")


def test_a_next_link_is_sent_exactly_as_given() -> None:
    with serving(scripted(fhir({}))) as home, client(home.base, VirtualClock()) as http:
        link = f"{home.base}?_getpages=a%2Fb%3D%3D&x=1&x=2&cursor=YWJj=="
        http.get_json(link)
        assert home.seen[0].target == link.removeprefix(home.base.removesuffix("/fhir"))


def test_errors_and_logs_name_no_patient(caplog: pytest.LogCaptureFixture) -> None:
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "not-found", "diagnostics": "Meier 4711 is unknown"}],
    }
    messages = []
    with caplog.at_level(logging.DEBUG, logger="fhir_adapter"):
        for status in (400, 404, 422, 503):
            with serving(scripted(fhir(outcome, status))) as home:
                with client(home.base, VirtualClock(), retry=RetryPolicy(attempts=2)) as http:
                    with pytest.raises((FatalError, TemporaryError)) as error:
                        http.get_json(SECRET)
            messages.append(str(error.value))
            assert error.value.codes == ("not-found",)
    said = " ".join(messages) + caplog.text
    assert "GET Patient: status 404 (not-found)" in said
    assert not any(word in said for word in ("Meier", "4711", "private", "name="))


def test_every_try_is_audited_with_its_own_request_id() -> None:
    log: list[Interaction] = []
    with (
        serving(scripted(Answer(503), fhir({"a": 1}))) as home,
        client(home.base, VirtualClock(), audit=log.append) as http,
    ):
        http.get_json("Observation", params={"code": "8867-4"})
    assert [entry.status for entry in log] == [503, 200]
    assert [entry.request_id for entry in log] == [seen.headers["x-request-id"] for seen in home.seen]
    assert (log[1].resource_type, log[1].query, log[1].attempt) == ("Observation", "code=8867-4", 1)


def test_a_download_lands_whole_or_not_at_all(tmp_path: Path) -> None:
    whole = Answer(200, b'{"a":1}\n' * 1000, {"Content-Type": "application/fhir+ndjson"})
    with serving(scripted(Answer(200, whole.body, whole.headers, cut=100), whole)) as home:
        with client(home.base, VirtualClock()) as http:
            http.download(home.base + "/file", tmp_path / "a.ndjson")
    assert (tmp_path / "a.ndjson").read_bytes() == whole.body
    with serving(scripted(Answer(404))) as home, client(home.base, VirtualClock()) as http:
        with pytest.raises(FatalError):
            http.download(home.base + "/file", tmp_path / "b.ndjson")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ndjson"]


def test_origins_compare_scheme_host_and_port() -> None:
    assert same_origin("https://a.example", "https://A.EXAMPLE.:443/x")
    assert not same_origin("https://a.example", "http://a.example")
    assert not same_origin("https://a.example", "https://a.example:8443")
    with pytest.raises(OriginError):
        origin("https://user:pw@a.example")
    with pytest.raises(OriginError):
        origin("https://a.example:notaport")
