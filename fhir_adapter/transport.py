"""HTTP for hospital networks: retries, one origin, no secrets in messages.

Rules (SMART Backend Services, Bulk Data Access 2.0, and what field use taught others):

* 408, 425, 429, 5xx and connection loss are tried again with capped exponential backoff; ``Retry-After``
  (seconds or HTTP date) wins over the backoff. Methods that are not idempotent are repeated only where
  the server cannot have acted (429, no connection), unless the caller says ``idempotent=True``.
* The token goes to the base address's origin (scheme, host, port) and nowhere else; redirects and links
  to another origin are refused unless the site allows that origin, and then they carry no token.
* 401 renews the token once and does not count as a try.
* An HTML page with status 200 (a login page, a proxy's apology) is an error. A page of JSON that does not
  parse is fetched once more: something between here and the server may have cut it.
* Credentials are not sent over plain http except on this machine.
* Messages and log lines name method and resource type only, never ids or query strings.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import ssl
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urljoin, urlsplit

import httpx

from fhir_adapter.errors import (
    AuthorizationError,
    ConnectionLostError,
    ContentError,
    FatalError,
    OriginError,
    RequestError,
    TemporaryError,
    TooLargeError,
)

log = logging.getLogger(__name__)
for _library in ("httpx", "httpcore"):  # they log addresses with queries, and headers
    logging.getLogger(_library).setLevel(logging.WARNING)

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
FHIR_JSON = "application/fhir+json"
DEFAULT_PORTS = {"http": 80, "https": 443}
MEGABYTE = 1_000_000
MAX_REDIRECTS = 3


class Clock(Protocol):
    """Time as the transport needs it; tests pass a virtual one."""

    def now(self) -> datetime:
        """Return the current time with a zone."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return :func:`time.monotonic`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Call :func:`time.sleep`."""
        time.sleep(seconds)


class Auth(Protocol):
    """A way to prove who we are."""

    def headers(self) -> dict[str, str]:
        """Return the headers for one request, with a token that is still good."""

    def renew(self) -> bool:
        """Forget the token after a 401; return whether another try makes sense."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try again.

    Attributes
    ----------
    attempts
        Tries in all, the first included.
    base, cap
        Backoff of the n-th retry is ``min(cap, base * 2**n)`` seconds.
    jitter
        Share of the backoff that is random, so that many clients do not come back at once.
    longest_wait
        A ``Retry-After`` beyond this ends the request with :class:`TemporaryError` that carries it: a
        night cannot wait five hours inside one request.
    """

    attempts: int = 5
    base: float = 1.0
    cap: float = 60.0
    jitter: float = 0.1
    longest_wait: float = 300.0

    def backoff(self, retry: int, draw: float) -> float:
        """Return seconds before the ``retry``-th retry (from 0); ``draw`` lies in [0, 1)."""
        return float(min(self.cap, self.base * 2.0**retry) * (1 - self.jitter * draw))


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """Limits in seconds; ``total`` bounds a whole answer, so that a server cannot drip bytes for ever."""

    connect: float = 10.0
    read: float = 60.0
    total: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """One request for the audit log. ``query`` is raw: it belongs there and nowhere else.

    ``server`` is scheme, host and port; ``writes`` are method and address of a Bundle's entries.
    """

    request_id: str
    method: str
    path: str
    query: str
    status: int | None
    error: str | None
    started: datetime
    seconds: float
    attempt: int
    bytes_received: int
    resource_type: str | None
    server: str = ""
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str
    request_id: str
    label: str = field(repr=False, default="")

    def json(self) -> Any:
        """Return the parsed body.

        Raises
        ------
        ContentError
            If the body is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise ContentError(f"{self.label}: the answer is not JSON", status=self.status) from None

    @property
    def etag_version(self) -> str | None:
        """The version in a FHIR ``ETag: W/"3"`` header."""
        match = re.fullmatch(r'(?:W/)?"([^"]+)"', self.headers.get("etag", ""))
        return match[1] if match else None


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an http(s) URL.

    Raises
    ------
    OriginError
        For other schemes, no host, or user information in the address.

    Examples
    --------
    >>> origin("https://EHR.example/fhir?x=1")
    ('https', 'ehr.example', 443)
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise OriginError("the address cannot be read") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not parts.hostname:
        raise OriginError("only http and https addresses with a host are followed")
    if parts.username is not None or parts.password is not None or "\\" in url:
        raise OriginError("an address with user information is not followed")
    return scheme, parts.hostname.lower().rstrip("."), port or DEFAULT_PORTS[scheme]


def same_origin(first: str, second: str) -> bool:
    """Tell whether two URLs share scheme, host and port.

    Examples
    --------
    >>> same_origin("https://ehr.example/fhir", "https://ehr.example:443/other")
    True
    >>> same_origin("https://ehr.example", "https://ehr.example.evil.test")
    False
    """
    return origin(first) == origin(second)


def is_loopback(host: str) -> bool:
    """Tell whether a host name is this machine's own.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("127.0.0.1.evil.test")
    (True, False)
    """
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """Read ``Retry-After``: seconds, or an HTTP date (RFC 9110 §10.2.3); None where it says nothing.

    Examples
    --------
    >>> retry_after_seconds("120", datetime(2026, 1, 1, tzinfo=UTC))
    120.0
    >>> retry_after_seconds("Thu, 01 Jan 2026 00:00:30 GMT", datetime(2026, 1, 1, tzinfo=UTC))
    30.0
    """
    if not text:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text.strip()):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def server_time(reply: Reply, clock: Clock) -> datetime:
    """Return the time by the server's clock, by which a ``Retry-After`` date is meant; else by ours."""
    try:
        moment = parsedate_to_datetime(reply.headers.get("date", ""))
    except (TypeError, ValueError):
        return clock.now()
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def outcome_codes(content: bytes) -> tuple[str, ...]:
    """Return the ``issue.code`` values of an OperationOutcome body, without its texts."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ()
    return issue_codes(body)


def issue_codes(body: object) -> tuple[str, ...]:
    """Return the ``issue.code`` values of a parsed OperationOutcome, without its texts."""
    if not isinstance(body, dict) or body.get("resourceType") != "OperationOutcome":
        return ()
    issues = body.get("issue")
    codes = (
        [issue.get("code") for issue in issues if isinstance(issue, dict)] if isinstance(issues, list) else []
    )
    return tuple(code for code in codes if isinstance(code, str) and re.fullmatch(r"[a-z-]{1,40}", code))


class Transport:
    """A client bound to one base address.

    Parameters
    ----------
    base_url
        FHIR or DICOMweb base address.
    auth
        Credentials for that origin, or None.
    retry, timeout
        Limits.
    clock
        Time source; also sleeps.
    draw
        Uniform random numbers for jitter.
    extra_headers
        Sent with every request to the base's origin (``Epic-Client-ID`` for example).
    ca_bundle
        PEM file of the hospital's authority.
    proxy
        HTTP proxy address. Proxies in the environment are not used.
    audit
        Called with an :class:`Interaction` after every try.
    allowed_origins
        Further origins that may be read, without credentials (a file store of an export).
    max_bytes
        Largest answer held in memory, after content decoding.
    connections
        Most connections at a time.
    channel
        An httpx transport in place of the network.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        extra_headers: Mapping[str, str] | None = None,
        ca_bundle: Path | None = None,
        proxy: str | None = None,
        audit: Callable[[Interaction], None] | None = None,
        allowed_origins: Collection[str] = (),
        max_bytes: int = 64 * MEGABYTE,
        connections: int = 5,
        channel: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._origin = origin(base_url)
        if auth is not None and self._origin[0] != "https" and not is_loopback(self._origin[1]):
            raise OriginError("credentials are not sent over plain http; use https")
        self._allowed = {origin(address) for address in allowed_origins}
        self._auth = auth
        self._retry = retry or RetryPolicy()
        self._timeout = timeout or Timeout()
        self.clock: Clock = clock or SystemClock()
        self._draw = draw
        self._new_id = new_id
        self._extra = dict(extra_headers or {})
        self._audit = audit
        self._max_bytes = max_bytes
        context = _tls_context(ca_bundle, needed={self._origin, *self._allowed})
        self._client = httpx.Client(
            verify=context,
            proxy=proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(self._timeout.read, connect=self._timeout.connect),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=channel,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def url(self, path_or_url: str) -> str:
        """Return the absolute address of a path below the base, or of a link after the origin check.

        Raises
        ------
        OriginError
            If the link leaves the allowed origins.
        """
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|(?i:data|file|urn|javascript):", path_or_url):
            target = origin(path_or_url)
            if target != self._origin and target not in self._allowed:
                raise OriginError("a link leads to a host that the site does not allow")
            return path_or_url
        relative = path_or_url.lstrip("/\\")
        path = relative.split("?", 1)[0].lower().replace("%2e", ".")
        if ".." in re.split(r"[/\\]|%2f|%5c", path):
            raise OriginError("a path that climbs out of the base address is not followed")
        return (
            f"{self.base_url}/{relative}"
            if relative and not relative.startswith("?")
            else self.base_url + relative
        )

    def request(
        self,
        method: str,
        path_or_url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        accept_status: Collection[int] = (),
        idempotent: bool | None = None,
        authenticate: bool = True,
        max_bytes: int | None = None,
        allow_html: bool = False,
    ) -> Reply:
        """Send a request, with retries, and return the complete answer.

        Parameters
        ----------
        method, path_or_url
            A path is relative to the base; a URL must lie in an allowed origin.
        json, content
            Body; JSON is sent as ``application/fhir+json`` unless a header says otherwise.
        accept_status
            Statuses other than 2xx that are returned rather than raised.
        idempotent
            Whether a repeat is harmless; by default GET, HEAD, OPTIONS, PUT and DELETE are.
        authenticate
            False leaves the credentials out (``requiresAccessToken: false``).

        Raises
        ------
        TemporaryError, ConnectionLostError
            If all tries failed with faults that may pass.
        AuthorizationError, OriginError, ContentError, FatalError
            If another try would not help.
        """
        body, sent = _body(json, content, headers)
        writes = _bundle_writes(json)
        limit = self._max_bytes if max_bytes is None else max_bytes

        def read(response: httpx.Response, started: float, label: str) -> bytes:
            parts = bytearray()
            for chunk in self._chunks(response, started, limit, label):
                parts += chunk
            return bytes(parts)

        return self._send(
            method,
            path_or_url,
            body,
            sent,
            params,
            accept_status,
            idempotent,
            authenticate,
            read,
            allow_html,
            writes,
        )

    def get_json(
        self,
        path_or_url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        authenticate: bool = True,
    ) -> dict[str, Any]:
        """Return a JSON object.

        Raises
        ------
        ContentError
            If the answer is not one JSON object, besides all that :meth:`request` raises.
        """
        for last in (False, True):
            reply = self.request(
                "GET", path_or_url, params=params, headers=headers, authenticate=authenticate
            )
            try:
                value = reply.json()
                break
            except ContentError:
                if last:
                    raise
                log.warning("%s: the answer is not JSON, trying once more", reply.label)
        if not isinstance(value, dict):
            raise ContentError(f"{reply.label}: the answer is not a JSON object", status=reply.status)
        return value

    def download(
        self,
        path_or_url: str,
        target: Path,
        *,
        headers: Mapping[str, str] | None = None,
        authenticate: bool = True,
        max_bytes: int = 50_000 * MEGABYTE,
    ) -> Reply:
        """Stream an answer to a file: temporary name, fsync, rename. The reply's content is empty.

        Every try starts the file anew, so that a broken try leaves nothing behind.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")

        def read(response: httpx.Response, started: float, label: str) -> bytes:
            if not response.is_success:
                return b"".join(self._chunks(response, started, self._max_bytes, label))
            with temporary.open("wb") as file:
                for chunk in self._chunks(response, started, max_bytes, label):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            return b""

        try:
            reply = self._send(
                "GET", path_or_url, None, dict(headers or {}), None, (), True, authenticate, read, False
            )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return reply

    # One request: tries, waits, redirects.

    def _send(
        self,
        method: str,
        path_or_url: str,
        body: bytes | None,
        headers: dict[str, str],
        params: Mapping[str, Any] | None,
        accept_status: Collection[int],
        idempotent: bool | None,
        authenticate: bool,
        read: Callable[[httpx.Response, float, str], bytes],
        allow_html: bool,
        writes: tuple[str, ...] = (),
    ) -> Reply:
        url = self.url(path_or_url)
        label = self._label(method, url)
        harmless = method in IDEMPOTENT if idempotent is None else idempotent
        renewed = False
        retry = 0
        redirects = 0
        while True:
            try:
                reply = self._once(
                    method, url, body, headers, params, authenticate, read, label, retry, writes
                )
            except ConnectionLostError as error:
                never_sent = isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout))
                if not (harmless or never_sent):
                    raise
                failure: RequestError = error
                wait = None
            else:
                if reply.status in accept_status:
                    return reply
                if 200 <= reply.status < 300:
                    if not allow_html and _is_html(reply):
                        raise ContentError(
                            f"{label}: status {reply.status} with an HTML page; a login page or a proxy?",
                            status=reply.status,
                        )
                    return reply
                if reply.status in {301, 302, 303, 307, 308} and method in {"GET", "HEAD"}:
                    redirects += 1
                    url, params = self._redirected(reply, redirects, label), None
                    continue
                if reply.status == 401 and authenticate and self._auth and not renewed and self._auth.renew():
                    renewed = True
                    continue
                wait = retry_after_seconds(reply.headers.get("retry-after"), server_time(reply, self.clock))
                failure = _failure(reply, label, wait)
                if not isinstance(failure, TemporaryError) or not (harmless or reply.status == 429):
                    raise failure
            retry += 1
            if retry >= self._retry.attempts:
                raise failure
            if wait is not None and wait > self._retry.longest_wait:
                raise failure
            pause = self._retry.backoff(retry - 1, self._draw()) if wait is None else wait
            log.warning("%s: try %d of %d failed, next in %.1f s", label, retry, self._retry.attempts, pause)
            self.clock.sleep(pause)

    def _once(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: dict[str, str],
        params: Mapping[str, Any] | None,
        authenticate: bool,
        read: Callable[[httpx.Response, float, str], bytes],
        label: str,
        attempt: int,
        writes: tuple[str, ...],
    ) -> Reply:
        request_id = self._new_id()
        all_headers = {"Accept": FHIR_JSON, "Accept-Encoding": "gzip", "X-Request-Id": request_id}
        home = origin(url) == self._origin
        if home:
            all_headers |= self._extra
        all_headers |= headers
        if home and authenticate and self._auth:
            all_headers |= self._auth.headers()
        request = self._client.build_request(
            method, url, content=body, headers=all_headers, params=dict(params) if params else None
        )
        started, moment = self.clock.monotonic(), self.clock.now()
        status: int | None = None
        content = b""
        problem: str | None = None
        try:
            with self._stream(request, label) as response:
                status = response.status_code
                content = read(response, started, label)
                return Reply(status, response.headers, content, str(response.url), request_id, label)
        except RequestError as error:
            problem = type(error).__name__
            raise
        finally:
            if self._audit:
                self._audit(
                    Interaction(
                        request_id=request_id,
                        method=method,
                        path=request.url.path,
                        query=request.url.query.decode("ascii", "replace"),
                        status=status,
                        error=problem,
                        started=moment,
                        seconds=self.clock.monotonic() - started,
                        attempt=attempt,
                        bytes_received=len(content),
                        resource_type=self._resource_type(str(request.url)),
                        server="{}://{}:{}".format(*origin(url)),
                        writes=writes,
                    )
                )

    @contextmanager
    def _stream(self, request: httpx.Request, label: str) -> Iterator[httpx.Response]:
        """Yield an answer whose body is unread; httpx's errors become ours, without their texts."""
        response: httpx.Response | None = None
        try:
            response = self._client.send(request, stream=True)
            yield response
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ConnectionLostError(f"{label}: connection lost ({type(error).__name__})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FatalError(f"{label}: the request cannot be sent ({type(error).__name__})") from None
        finally:
            if response is not None:
                response.close()

    def _chunks(self, response: httpx.Response, started: float, limit: int, label: str) -> Iterator[bytes]:
        received = 0
        for chunk in response.iter_bytes():
            received += len(chunk)
            if received > limit:
                raise TooLargeError(f"{label}: the answer exceeds {limit} bytes", status=response.status_code)
            if self.clock.monotonic() - started > self._timeout.total:
                raise ConnectionLostError(f"{label}: no complete answer within {self._timeout.total:.0f} s")
            yield chunk

    def _redirected(self, reply: Reply, redirects: int, label: str) -> str:
        target = urljoin(reply.url, reply.headers.get("location", ""))
        if redirects > MAX_REDIRECTS:
            raise FatalError(f"{label}: too many redirects", status=reply.status)
        if not same_origin(target, reply.url):
            raise OriginError(f"{label}: redirected to another host", status=reply.status)
        return target

    def _resource_type(self, url: str) -> str | None:
        path = urlsplit(url).path
        base = urlsplit(self.base_url).path.rstrip("/")
        first = path.removeprefix(base).lstrip("/").split("/", 1)[0]
        return first if re.fullmatch(r"[A-Z][A-Za-z]{2,40}|\$[a-z-]{2,40}|metadata", first) else None

    def _label(self, method: str, url: str) -> str:
        return f"{method} {self._resource_type(url) or '(link)'}"


def _tls_context(ca_bundle: Path | None, *, needed: Collection[tuple[str, str, int]]) -> ssl.SSLContext:
    """Return a verifying context; without any https origin one that trusts nobody, which loads no files."""
    if ca_bundle:
        return ssl.create_default_context(cafile=str(ca_bundle))
    if any(scheme == "https" for scheme, _, _ in needed):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _body(
    value: Any,
    content: bytes | None,
    headers: Mapping[str, str] | None,
) -> tuple[bytes | None, dict[str, str]]:
    sent = dict(headers or {})
    if value is not None:
        content = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        sent = {"Content-Type": FHIR_JSON} | sent
    return content, sent


def _bundle_writes(body: Any) -> tuple[str, ...]:
    """Return what a Bundle asks for, without the resources."""
    if not isinstance(body, dict) or body.get("resourceType") != "Bundle":
        return ()
    requests = [entry.get("request") or {} for entry in body.get("entry") or () if isinstance(entry, dict)]
    return tuple(f"{item['method']} {item['url']}" for item in requests if "method" in item and "url" in item)


def _is_html(reply: Reply) -> bool:
    kind = reply.headers.get("content-type", "").lower()
    return "text/html" in kind or reply.content[:256].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _failure(reply: Reply, label: str, retry_after: float | None) -> RequestError:
    codes = outcome_codes(reply.content)
    shown = f" ({', '.join(codes)})" if codes else ""
    message = f"{label}: status {reply.status}{shown}"
    if reply.status in {401, 403}:
        return AuthorizationError(message, status=reply.status, codes=codes)
    if reply.status in RETRIED:
        return TemporaryError(message, status=reply.status, codes=codes, retry_after=retry_after)
    return FatalError(message, status=reply.status, codes=codes)
