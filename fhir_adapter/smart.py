"""Ways to prove who we are: SMART Backend Services, a static token, a password.

SMART Backend Services (https://hl7.org/fhir/smart-app-launch/backend-services.html): the token endpoint is
discovered at ``.well-known/smart-configuration``; a one-time JWT signed with RS384 or ES384 buys a short
token with ``system/`` scopes, which is renewed before it expires and once on 401.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from jwt import PyJWK

from fhir_adapter.errors import (
    AuthorizationError,
    ContentError,
    FatalError,
    OriginError,
    TemporaryError,
)
from fhir_adapter.transport import Reply, RetryPolicy, Transport, is_loopback, origin

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 240
MARGIN_SECONDS = 60.0
RETRY = RetryPolicy(attempts=3)
"""For the token endpoint: the transport repeats no POST, and an assertion may be used only once."""


class BasicAuth:
    """User and password (RFC 7617)."""

    def __init__(self, user: str, password: str) -> None:
        self._value = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def headers(self) -> dict[str, str]:
        """Return the Authorization header."""
        return {"Authorization": self._value}

    def renew(self) -> bool:
        """A password does not become better by asking again."""
        return False


class BearerToken:
    """A token that the site hands out by other means."""

    def __init__(self, token: str) -> None:
        self._value = f"Bearer {token}"

    def headers(self) -> dict[str, str]:
        """Return the Authorization header."""
        return {"Authorization": self._value}

    def renew(self) -> bool:
        """There is nowhere to get another one."""
        return False


@dataclass(frozen=True)
class SigningKey:
    """A private key with the algorithm that SMART asks of its kind, and its key id."""

    key: Any
    algorithm: str
    key_id: str | None


def load_key(path: Path) -> SigningKey:
    """Read a private key from PEM or from a JWK or JWKS file.

    Of a JWKS the first private key for RS384 or ES384 is taken.

    Raises
    ------
    AuthorizationError
        If the file holds no usable private key; the message never shows its content.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise AuthorizationError(f"the private key file cannot be read ({type(error).__name__})") from None
    if "-----BEGIN" in text:
        return _pem_key(text)
    try:
        found = json.loads(text)
    except ValueError:
        raise AuthorizationError("the private key file is neither PEM nor JSON") from None
    keys = found.get("keys", [found]) if isinstance(found, dict) else []
    for item in keys:
        algorithm = _jwk_algorithm(item)
        if algorithm and "d" in item:
            try:
                return SigningKey(PyJWK(item | {"alg": algorithm}).key, algorithm, item.get("kid"))
            except (jwt.PyJWTError, ValueError, KeyError):
                continue
    raise AuthorizationError("the key file holds no private key for RS384 or ES384")


def _pem_key(text: str) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AuthorizationError("the PEM file holds no unencrypted private key") from None
    if isinstance(key, RSAPrivateKey) and key.key_size >= 2048:
        return SigningKey(key, "RS384", None)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
        return SigningKey(key, "ES384", None)
    raise AuthorizationError("SMART asks for an RSA key of at least 2048 bits (RS384) or a P-384 key (ES384)")


def _jwk_algorithm(item: object) -> str | None:
    if not isinstance(item, dict):
        return None
    if item.get("kty") == "RSA" and item.get("alg", "RS384") == "RS384":
        return "RS384"
    if item.get("kty") == "EC" and item.get("crv") == "P-384" and item.get("alg", "ES384") == "ES384":
        return "ES384"
    return None


def least_scopes(*, read: Iterable[str] = (), write: Iterable[str] = (), version: int = 1) -> str:
    """Return the least ``system/`` scopes for reading and writing resource types.

    Examples
    --------
    >>> least_scopes(read=["Patient"], write=["RiskAssessment"])
    'system/Patient.read system/RiskAssessment.write'
    >>> least_scopes(read=["Patient"], write=["RiskAssessment"], version=2)
    'system/Patient.rs system/RiskAssessment.cu'
    """
    reading, writing = ("rs", "cu") if version == 2 else ("read", "write")
    return " ".join(
        [f"system/{kind}.{reading}" for kind in read] + [f"system/{kind}.{writing}" for kind in write]
    )


class BackendServices:
    """Tokens by SMART Backend Services.

    Parameters
    ----------
    base_url
        FHIR base address, where the discovery document lies.
    client_id, key
        As registered with the server.
    scopes
        Space-separated ``system/`` scopes.
    open_transport
        Makes a client without credentials for a base address: discovery and token endpoint may be of
        different origins, and neither may ever see a token of the other.
    key_id
        ``kid`` as registered, where the key file has none.
    """

    def __init__(
        self,
        *,
        base_url: str,
        client_id: str,
        key: SigningKey,
        scopes: str,
        open_transport: Callable[[str], Transport],
        key_id: str | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._client_id = client_id
        self._key = key
        self._scopes = scopes
        self._open = open_transport
        self._key_id = key_id or key.key_id
        self._lock = threading.Lock()
        self._token: str | None = None
        self._expires = 0.0
        self._token_url: str | None = None
        self._token_transport: Transport | None = None

    def headers(self) -> dict[str, str]:
        """Return the Authorization header with a token that is good for another minute."""
        with self._lock:
            if self._token is None or self._now() > self._expires:
                self._obtain()
            return {"Authorization": f"Bearer {self._token}"}

    def renew(self) -> bool:
        """Forget the token; the next request gets a new one."""
        with self._lock:
            self._token = None
        return True

    def _now(self) -> float:
        return self._endpoint()[1].clock.monotonic()

    def _endpoint(self) -> tuple[str, Transport]:
        if self._token_url is None or self._token_transport is None:
            with self._open(self._base_url) as discovery:
                found = discovery.get_json(
                    ".well-known/smart-configuration", headers={"Accept": "application/json"}
                )
            url = found.get("token_endpoint")
            if not isinstance(url, str):
                raise AuthorizationError("the SMART configuration names no token endpoint")
            self._check_endpoint(url)
            methods = found.get("token_endpoint_auth_methods_supported")
            if isinstance(methods, list) and "private_key_jwt" not in methods:
                raise AuthorizationError("the server does not take signed assertions (private_key_jwt)")
            algorithms = found.get("token_endpoint_auth_signing_alg_values_supported")
            if isinstance(algorithms, list) and self._key.algorithm not in algorithms:
                raise AuthorizationError(f"the server does not take {self._key.algorithm}")
            self._token_url, self._token_transport = url, self._open(url)
        return self._token_url, self._token_transport

    def _check_endpoint(self, url: str) -> None:
        """The assertion goes over TLS, or stays on this machine, or on the server's own origin."""
        scheme, host, _ = origin(url)
        if scheme != "https" and not is_loopback(host) and origin(url) != origin(self._base_url):
            raise OriginError("the token endpoint is neither https nor the FHIR server itself")

    def _obtain(self) -> None:
        url, transport = self._endpoint()
        for retry in range(RETRY.attempts):
            asked = transport.clock.monotonic()
            try:
                reply = self._ask(url, transport)
                break
            except TemporaryError as error:
                pause = RETRY.backoff(retry, 0.0) if error.retry_after is None else error.retry_after
                if retry + 1 == RETRY.attempts or pause > RETRY.longest_wait:
                    raise
                transport.clock.sleep(pause)
            except FatalError as error:
                raise AuthorizationError(f"no token: status {error.status}", status=error.status) from None
        answer = reply.json()
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9\-._~+/]+=*", token):
            raise ContentError("the token endpoint gave no bearer token")
        if str(answer.get("token_type", "bearer")).lower() != "bearer":
            raise ContentError("the token endpoint gave a token of another type")
        lifetime = answer.get("expires_in")
        seconds = float(lifetime) if isinstance(lifetime, (int, float)) and lifetime > 0 else 300.0
        self._token = token
        self._expires = asked + max(seconds - MARGIN_SECONDS, seconds / 2)

    def _ask(self, url: str, transport: Transport) -> Reply:
        """Send a token request with an assertion of its own."""
        now = int(transport.clock.now().timestamp())
        assertion = jwt.encode(
            {
                "iss": self._client_id,
                "sub": self._client_id,
                "aud": url,
                "exp": now + ASSERTION_SECONDS,
                "iat": now,
                "jti": str(uuid.uuid4()),
            },
            self._key.key,
            algorithm=self._key.algorithm,
            headers={"kid": self._key_id} if self._key_id else None,
        )
        form = {
            "grant_type": "client_credentials",
            "scope": self._scopes,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return transport.request(
            "POST",
            url,
            content=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        )
