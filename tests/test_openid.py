"""Signing in with OpenID Connect, against a real provider on loopback (`oidc-provider-mock`)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from coupon_ledger.api.service.openid import OpenId, Provider
from coupon_ledger.api.service.settings_store import SettingsStore
from coupon_ledger.ledger.errors import OpenIdFailed, SettingsError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the provider still uses a part of Authlib that will go
    from oidc_provider_mock import User, run_server_in_thread

BACK = "http://localhost:1/sign-in/openid/back"
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*authlib.jose"),
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    users = [
        User(sub="s-mei", claims={"preferred_username": "mei"}),
        User(sub="s-imposter", claims={"preferred_username": "mei"}),
        User(sub="s-stranger", claims={"preferred_username": "nobody"}),
        User(sub="s-nameless", claims={}),
    ]
    with run_server_in_thread(require_nonce=True, user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SettingsStore]:
    with SettingsStore(tmp_path / "x.settings") as store:
        store.add_person("mei", role="finance")
        yield store


def openid(issuer: str, store: SettingsStore) -> OpenId:
    return OpenId(Provider(issuer, "ledger", "s3cret"), store)


def at_provider(url: str, sub: str) -> str:
    """What the browser brings back after somebody has signed in at the provider: the query of the address."""
    answer = requests.post(url, data={"sub": sub}, allow_redirects=False, timeout=10)
    assert answer.status_code == 302, answer.text
    return urlsplit(answer.headers["Location"]).query


def test_somebody_whom_an_admin_has_added_signs_in(issuer: str, store: SettingsStore) -> None:
    """Else a company's people cannot use the account that they have."""
    ours = openid(issuer, store)
    begun = ours.begin(BACK, "/finance?period=7d")
    person, back = ours.finish(begun.cookie, at_provider(begun.url, "s-mei"), BACK)
    assert (person.name, person.role, back) == ("mei", "finance", "/finance?period=7d")


def test_a_name_given_to_somebody_else_does_not_open_the_account(issuer: str, store: SettingsStore) -> None:
    """Else whoever gets a former colleague's name at the provider reads that colleague's pages."""
    ours = openid(issuer, store)
    begun = ours.begin(BACK, "/now")
    ours.finish(begun.cookie, at_provider(begun.url, "s-mei"), BACK)
    begun = ours.begin(BACK, "/now")
    with pytest.raises(OpenIdFailed, match="nobody with your name"):
        ours.finish(begun.cookie, at_provider(begun.url, "s-imposter"), BACK)


@pytest.mark.parametrize("sub", ["s-stranger", "s-nameless"])
def test_whom_no_admin_has_added_does_not_get_in(issuer: str, store: SettingsStore, sub: str) -> None:
    """Else everybody in the company sees what coupons cost."""
    ours = openid(issuer, store)
    begun = ours.begin(BACK, "/now")
    with pytest.raises(OpenIdFailed, match="ask an admin"):
        ours.finish(begun.cookie, at_provider(begun.url, sub), BACK)


def test_a_disabled_person_does_not_get_in(issuer: str, store: SettingsStore) -> None:
    """Else somebody who has left the company still signs in."""
    ours = openid(issuer, store)
    begun = ours.begin(BACK, "/now")
    ours.finish(begun.cookie, at_provider(begun.url, "s-mei"), BACK)
    store.change_person("mei", disabled=True)
    begun = ours.begin(BACK, "/now")
    with pytest.raises(OpenIdFailed):
        ours.finish(begun.cookie, at_provider(begun.url, "s-mei"), BACK)


def test_what_did_not_begin_in_this_browser_is_refused(issuer: str, store: SettingsStore) -> None:
    """Else a link makes somebody sign in as the one who sent it (login CSRF), or a stolen code works elsewhere."""
    ours = openid(issuer, store)
    begun, other = ours.begin(BACK, "/now"), ours.begin(BACK, "/now")
    query = at_provider(begun.url, "s-mei")
    for cookie in ("", "x", begun.cookie[:-8] + "AAAAAAAA", other.cookie):
        with pytest.raises(OpenIdFailed):
            ours.finish(cookie, query, BACK)


def test_the_request_has_a_nonce_and_a_challenge(issuer: str, store: SettingsStore) -> None:
    """Else a code that somebody overhears can be used, or an old token be brought again."""
    asked = parse_qs(urlsplit(openid(issuer, store).begin(BACK, "/now").url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert {"nonce", "state", "code_challenge"} <= asked.keys()
    assert "client_secret" not in json.dumps(asked)


def test_a_provider_that_does_not_answer_is_told_without_details(store: SettingsStore) -> None:
    """Else a page shows a traceback, or hangs."""
    with pytest.raises(OpenIdFailed, match="try again"):
        openid("http://localhost:1", store).begin(BACK, "/now")


def test_options_that_cannot_work_are_refused_at_the_start(tmp_path: Path) -> None:
    """Else the service starts, and nobody can sign in."""
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    with pytest.raises(SettingsError, match="name both"):
        Provider.of_settings("https://id.example.com", None, file, "email")
    with pytest.raises(SettingsError, match="cannot be read"):
        Provider.of_settings("https://id.example.com", "ledger", tmp_path / "none", "email")
    with pytest.raises(SettingsError, match="https"):
        Provider.of_settings("http://id.example.com", "ledger", file, "email")
    assert Provider.of_settings("https://id.example.com/", "ledger", file, "email").client_secret == "s3cret"
