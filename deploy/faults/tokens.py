"""The server's half of SMART Backend Services: discovery, and tokens for signed assertions."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import jwt

from deploy.faults.clock import VirtualClock
from deploy.faults.loopback import Answer, Request, json_answer

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class TokenServer:
    """Checks assertions as the SMART specification asks, and hands out short tokens.

    Parameters
    ----------
    client_id, key, algorithm
        The registered client with its public key.
    lifetime
        ``expires_in`` of a token in seconds.

    Attributes
    ----------
    issued
        Tokens handed out.
    refusals
        Why assertions were refused, in order.
    """

    def __init__(
        self, clock: VirtualClock, *, client_id: str, key: Any, algorithm: str, lifetime: int = 300
    ) -> None:
        self._clock = clock
        self._client_id = client_id
        self._key = key
        self._algorithm = algorithm
        self._lifetime = lifetime
        self._seen: set[str] = set()
        self._expires: dict[str, float] = {}
        self.issued = 0
        self.scopes: set[str] = set()
        self.refusals: list[str] = []

    def configuration(self, request: Request) -> Answer:
        """Answer discovery."""
        return json_answer(
            {
                "token_endpoint": f"{request.base}/fhir/token",
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "token_endpoint_auth_signing_alg_values_supported": [self._algorithm],
                "grant_types_supported": ["client_credentials"],
                "scopes_supported": ["system/*.read", "system/*.write"],
                "capabilities": ["client-confidential-asymmetric", "permission-v1"],
            }
        )

    def issue(self, request: Request) -> Answer:
        """Answer a token request."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        problem = self._problem(request, form)
        if problem:
            self.refusals.append(problem)
            error = "invalid_client" if problem.startswith("assertion") else "invalid_request"
            return json_answer({"error": error}, 400)
        self.issued += 1
        token = f"token-{self.issued}"
        self.scopes |= set(form["scope"].split())
        self._expires[token] = self._clock.monotonic() + self._lifetime
        return json_answer(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": self._lifetime,
                "scope": form["scope"],
            }
        )

    def accepts(self, request: Request) -> bool:
        """Tell whether a request carries a token that is still good."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._clock.monotonic() < self._expires.get(token, 0.0)

    def revoke_all(self) -> None:
        """Forget every token, as a server does that restarts."""
        self._expires.clear()

    def _problem(self, request: Request, form: dict[str, str]) -> str | None:
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return "content type"
        if form.get("grant_type") != "client_credentials":
            return "grant type"
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            return "assertion type"
        scopes = form.get("scope", "").split()
        if not scopes or not all(scope.startswith("system/") for scope in scopes):
            return "scope"
        try:
            claims = jwt.decode(
                form.get("client_assertion", ""),
                self._key,
                algorithms=[self._algorithm],
                audience=f"{request.base}/fhir/token",
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "jti", "iss", "sub"]},
            )
        except jwt.PyJWTError as error:
            return f"assertion: {type(error).__name__}"
        now = self._clock.now().timestamp()
        if not now < claims["exp"] <= now + 300:
            return "assertion: expiry"
        if claims["iss"] != self._client_id or claims["sub"] != self._client_id:
            return "assertion: client"
        if claims["jti"] in self._seen:
            return "assertion: used twice"
        self._seen.add(claims["jti"])
        return None
