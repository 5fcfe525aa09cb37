# ruff: noqa: SIM117 - a server, its client and what it must raise read better apart
"""SMART Backend Services against a scripted authorisation server that verifies the assertion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from reading_server import Answer, Seen, VirtualClock, fhir, serving

from fhir_adapter.errors import AuthorizationError, OriginError
from fhir_adapter.smart import BackendServices, load_key
from fhir_adapter.transport import RetryPolicy, Transport

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP384R1())


def pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def jwks(key: Any, algorithm: str) -> str:
    to_jwk = {"RS384": jwt.algorithms.RSAAlgorithm, "ES384": jwt.algorithms.ECAlgorithm}[algorithm].to_jwk
    public = json.loads(to_jwk(key.public_key())) | {"kid": "public"}
    private = json.loads(to_jwk(key)) | {"kid": "k1", "alg": algorithm}
    return json.dumps({"keys": [public, private]})


class AuthServer:
    """Discovery, token endpoint and one protected resource."""

    def __init__(self, key: Any, algorithm: str) -> None:
        self.key, self.algorithm = key, algorithm
        self.jtis: set[str] = set()
        self.tokens = 0
        self.valid: set[str] = set()
        self.expires_in: Any = 300
        self.configuration: dict[str, Any] = {}
        self.headers: dict[str, Any] = {}

    def __call__(self, request: Seen) -> Answer:
        base = f"http://{request.headers['host']}/fhir"
        if request.target.endswith("smart-configuration"):
            assert "authorization" not in request.headers
            return fhir({"token_endpoint": f"{base}/token"} | self.configuration)
        if request.target.endswith("/token"):
            return self.token(request, base)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return fhir({"ok": True}) if bearer in self.valid else Answer(401)

    def token(self, request: Seen, base: str) -> Answer:
        form = {key: values[0] for key, values in parse_qs(request.body.decode()).items()}
        self.headers = jwt.get_unverified_header(form["client_assertion"])
        claims = jwt.decode(
            form["client_assertion"],
            self.key.public_key(),
            algorithms=[self.algorithm],
            audience=f"{base}/token",
            options={"verify_exp": False, "verify_iat": False},
        )
        assert claims["iss"] == claims["sub"] == "nightingale"
        assert claims["exp"] - claims["iat"] <= 300
        assert claims["jti"] not in self.jtis
        assert form["grant_type"] == "client_credentials"
        assert form["scope"] == "system/Patient.read"
        self.jtis.add(claims["jti"])
        self.tokens += 1
        token = f"token-{self.tokens}"
        self.valid = {token}
        return fhir({"access_token": token, "token_type": "bearer", "expires_in": self.expires_in})


def client(base: str, key_file: Path, clock: VirtualClock) -> Transport:
    def open_transport(url: str) -> Transport:
        return Transport(url, clock=clock, retry=RetryPolicy(attempts=1))

    auth = BackendServices(
        base_url=base,
        client_id="nightingale",
        key=load_key(key_file),
        scopes="system/Patient.read",
        open_transport=open_transport,
    )
    return Transport(base, auth=auth, clock=clock, retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize(
    ("key", "algorithm", "text", "key_id"),
    [
        (RSA_KEY, "RS384", pem(RSA_KEY), None),
        (EC_KEY, "ES384", pem(EC_KEY), None),
        (RSA_KEY, "RS384", jwks(RSA_KEY, "RS384"), "k1"),
        (EC_KEY, "ES384", jwks(EC_KEY, "ES384"), "k1"),
    ],
)
def test_a_token_is_bought_with_a_signed_assertion(
    key: Any, algorithm: str, text: str, key_id: str | None, tmp_path: Path
) -> None:
    script = AuthServer(key, algorithm)
    (tmp_path / "key").write_text(text)
    with serving(script) as server, client(server.base, tmp_path / "key", VirtualClock()) as http:
        assert http.get_json("Patient") == {"ok": True}
        assert http.get_json("Patient") == {"ok": True}
    assert script.tokens == 1
    assert (script.headers["alg"], script.headers.get("kid")) == (algorithm, key_id)


def test_a_token_is_renewed_before_it_expires_and_once_on_401(tmp_path: Path) -> None:
    script, clock = AuthServer(RSA_KEY, "RS384"), VirtualClock()
    (tmp_path / "key").write_text(pem(RSA_KEY))
    with serving(script) as server, client(server.base, tmp_path / "key", clock) as http:
        http.get_json("Patient")
        clock.elapsed += 239
        http.get_json("Patient")
        assert script.tokens == 1
        clock.elapsed += 2
        http.get_json("Patient")
        assert script.tokens == 2
        script.valid = set()
        http.get_json("Patient")
        assert script.tokens == 3
        assert len(script.jtis) == 3


def test_a_server_that_always_says_401_ends_after_one_renewal(tmp_path: Path) -> None:
    script = AuthServer(RSA_KEY, "RS384")
    (tmp_path / "key").write_text(pem(RSA_KEY))

    def never(request: Seen) -> Answer:
        return Answer(401) if request.target.endswith("Patient") else script(request)

    with serving(never) as server, client(server.base, tmp_path / "key", VirtualClock()) as http:
        with pytest.raises(AuthorizationError):
            http.get_json("Patient")
    assert script.tokens == 2


@pytest.mark.parametrize(
    ("configuration", "error", "message"),
    [
        ({"token_endpoint": "http://tokens.example/token"}, OriginError, "neither https"),
        ({"token_endpoint": None}, AuthorizationError, "no token endpoint"),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, AuthorizationError, "signed"),
        ({"token_endpoint_auth_signing_alg_values_supported": ["ES384"]}, AuthorizationError, "RS384"),
    ],
)
def test_a_server_that_cannot_do_it_safely_is_refused(
    configuration: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    script = AuthServer(RSA_KEY, "RS384")
    script.configuration = configuration
    (tmp_path / "key").write_text(pem(RSA_KEY))
    with serving(script) as server, client(server.base, tmp_path / "key", VirtualClock()) as http:
        with pytest.raises(error, match=message):
            http.get_json("Patient")
    assert script.tokens == 0


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}",
        '{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}',
        "-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----",
        pem(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_an_unusable_key_file_is_refused_without_showing_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(AuthorizationError) as error:
        load_key(tmp_path / "key")
    assert "secretsecret" not in str(error.value)
    with pytest.raises(AuthorizationError):
        load_key(tmp_path / "missing")
