"""Signing in with OpenID Connect: the authorization code flow with PKCE (RFC 7636), done by Authlib.

The person that the provider names must exist here already: an admin adds people, the provider only says who they are.
The first sign-in ties the person to the provider's id (`sub`), so a name that the provider reassigns does not open
the account.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from coupon_ledger.api.service.settings_store import Person, SettingsStore
from coupon_ledger.ledger.errors import OpenIdFailed, SettingsError, UnknownAccount

_WITHIN_S: Final = 600.0
"""A sign-in must be completed within this time."""
_TIMEOUT_S: Final = 10.0
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA")
_LEEWAY_S: Final = 60
_logger = logging.getLogger("coupon_ledger.service")


@dataclass(frozen=True, slots=True)
class Provider:
    """How this service is registered with the provider. `claim`: the claim that has a person's name here."""

    issuer: str
    client_id: str
    client_secret: str
    claim: str = "preferred_username"

    @classmethod
    def of_settings(cls, issuer: str, client_id: str | None, secret_file: Path | None, claim: str) -> Provider:
        """Raises `SettingsError`."""
        if not client_id or secret_file is None:
            raise SettingsError("OpenID Connect: needs --openid-client and --openid-secret-file too; name both")
        try:
            secret = secret_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"file {secret_file}: cannot be read ({error.strerror}); check the path") from error
        local = issuer.startswith(("http://127.0.0.1:", "http://localhost:"))
        if not issuer.startswith("https://") and not local:
            raise SettingsError(f"issuer {issuer}: is no https address; name the provider's issuer")
        return cls(issuer.rstrip("/"), client_id, secret, claim)


class Begun(NamedTuple):
    """A sign-in that has begun. `url`: of the provider, where the browser goes. `cookie`: what the browser keeps
    meanwhile."""

    url: str
    cookie: str


class OpenId:
    """All methods may be called from any thread; they wait for the provider."""

    def __init__(self, provider: Provider, store: SettingsStore) -> None:
        self._provider = provider
        self._store = store
        self._key = store.secret("openid")
        self._known: dict[str, Any] | None = None

    def begin(self, redirect_uri: str, back: str) -> Begun:
        """Begin a sign-in. `back`: the page to which it leads. Raises `OpenIdFailed`."""
        verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        session = self._session(redirect_uri)
        with _failing_clearly():
            url, state = session.create_authorization_url(
                self._described()["authorization_endpoint"], nonce=nonce, code_verifier=verifier
            )
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "back": back, "until": time.time() + _WITHIN_S}
        return Begun(url, self._sealed(kept))

    def finish(self, cookie: str, query: str, redirect_uri: str) -> tuple[Person, str]:
        """Complete a sign-in. `cookie`: from `begin`; `query`: of the address to which the provider sent the browser.
        Returns the person, and the page to which the sign-in leads. Raises `OpenIdFailed`."""
        kept = self._opened(cookie)
        session = self._session(redirect_uri, state=kept["state"])
        with _failing_clearly():
            token = session.fetch_token(
                self._described()["token_endpoint"],
                authorization_response=f"{redirect_uri}?{query}",
                code_verifier=kept["verifier"],
                timeout=_TIMEOUT_S,
            )
            claims = self._claims(token["id_token"], kept["nonce"])
        return self._person(claims), kept["back"]

    def _session(self, redirect_uri: str, state: str | None = None) -> Any:
        from authlib.integrations.requests_client import OAuth2Session

        provider = self._provider
        return OAuth2Session(
            provider.client_id,
            provider.client_secret,
            scope="openid profile email",
            redirect_uri=redirect_uri,
            state=state,
            code_challenge_method="S256",
        )

    def _described(self) -> dict[str, Any]:
        """The provider's description of itself, asked for once."""
        import requests

        if self._known is None:
            answer = requests.get(f"{self._provider.issuer}/.well-known/openid-configuration", timeout=_TIMEOUT_S)
            answer.raise_for_status()
            described = answer.json()
            if described["issuer"].rstrip("/") != self._provider.issuer:
                raise ValueError(f"names another issuer: {described['issuer']}")
            self._known = described
        return self._known

    def _claims(self, id_token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token, checked (OpenID Connect Core 1.0, section 3.1.3.7)."""
        import requests
        from joserfc import jwt
        from joserfc.jwk import KeySet

        answer = requests.get(self._described()["jwks_uri"], timeout=_TIMEOUT_S)
        answer.raise_for_status()
        token = jwt.decode(id_token, KeySet.import_key_set(answer.json()), algorithms=list(_ALGORITHMS))
        jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "values": [self._provider.issuer, f"{self._provider.issuer}/"]},
            aud={"essential": True, "value": self._provider.client_id},
            sub={"essential": True},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(token.claims)
        return token.claims

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject = f"{self._provider.issuer}#{claims['sub']}"
        person = self._store.of_subject(subject)
        if person is not None:
            return person
        name = claims.get(self._provider.claim)
        try:
            person = self._store.person(str(name)) if name else None
        except UnknownAccount:
            person = None
        if person is None or person.disabled_at is not None or not self._store.use_subject(person.name, subject):
            _logger.warning("OpenID Connect: nobody here is %s", str(name)[:100])
            raise OpenIdFailed("nobody with your name may sign in here; ask an admin to add you")
        return person

    def _sealed(self, kept: Mapping[str, Any]) -> str:
        text = json.dumps(kept).encode()
        return base64.urlsafe_b64encode(self._signature(text) + text).decode()

    def _opened(self, cookie: str) -> dict[str, Any]:
        try:
            signed = base64.urlsafe_b64decode(cookie)
        except ValueError:
            signed = b""
        text = signed[32:]
        if not hmac.compare_digest(signed[:32], self._signature(text)):
            raise OpenIdFailed("this sign-in did not begin here; sign in again")
        kept: dict[str, Any] = json.loads(text)
        if kept["until"] < time.time():
            raise OpenIdFailed("this sign-in took too long; sign in again")
        return kept

    def _signature(self, text: bytes) -> bytes:
        return hmac.digest(self._key, b"openid" + text, "sha256")


class _failing_clearly:
    """Within the block, any failure of the provider becomes `OpenIdFailed`; the log has the details."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, OpenIdFailed):
            _logger.warning("OpenID Connect: %s: %s", type(error).__name__, str(error)[:300])
            raise OpenIdFailed("the sign-in with the provider failed; try again, or ask an admin") from error
