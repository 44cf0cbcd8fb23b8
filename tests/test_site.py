"""The pages over a real ledger: who gets in, that every page is shown in both languages, that its numbers are those of
the events, and what odd requests get."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from coupon_ledger.api.pages.site import MAKERS
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from tests.command_line import PATIENCE_S, done, wait_until
from tests.services import Service, serving

pytestmark = pytest.mark.long

PASSWORD = "correct horse battery staple"
PEOPLE = ("marketing", "finance", "manager", "risk", "ops", "admin")
COUPONS, USED, PRICE, DISCOUNT = 40, 12, 20_000, 1_500
SECRET = "u-secret-"
"""Each user id begins with this: a page for a role without personal data may not show it."""
PAGES = (
    "/now",
    "/now?period=7d&against=previous",
    "/campaigns",
    "/campaigns/sale",
    *(f"/campaigns/sale?tab={tab}" for tab in ("trend", "channels", "people", "caused", "money", "review")),
    "/coupons/c-1",
    "/orders/o-1",
    f"/users/{SECRET}1",
    "/customers",
    "/finance?period=all",
    "/finance?tab=statement&period=all",
    "/alerts",
    "/explore",
    "/explore?metric=used_events&by=channel&grain=hour",
    "/explore?metric=stock_left&by=campaign",
    "/why?metric=used_events",
    "/why?metric=used_events&known=1d",
    "/ops",
    "/ops?tab=dead-letters",
    "/ops?tab=violations",
    "/replay",
    "/search?q=c-1",
    "/search?q=sale",
)
FORBIDDEN = {
    "marketing": ("/finance", "/alerts", "/ops"),
    "finance": ("/customers", "/alerts", "/ops"),
    "manager": ("/alerts", "/ops"),
    "risk": ("/ops",),
    "ops": ("/finance",),
    "admin": (),
}
"""What each role may not open, of the pages in the top bar."""


@dataclass
class Answer:
    status: int
    headers: Message
    text: str


@dataclass
class Browser:
    """Asks as a browser does, with a cookie of its own."""

    service: Service
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, form: Mapping[str, str] | None = None, **headers: str) -> Answer:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
        body = None
        if form is not None:
            body = urlencode(form)
            sent = {"Origin": f"http://127.0.0.1:{self.service.port}", **sent}
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.partition(";")[0]
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def sign_in(self, name: str, password: str = PASSWORD) -> Answer:
        return self.ask("POST", "/sign-in", {"name": name, "password": password, "back": "/campaigns"})


def at(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


def event(topic: str, kind: str, number: int, minutes: float, **more: object) -> dict[str, object]:
    name = f"{topic}-{kind}-{number}"
    return {"topic": topic, "type": kind, "event_id": name, "source": "shop", "occurred_at": at(minutes), **more}


def world() -> list[dict[str, object]]:
    """A campaign whose coupons are claimed by as many users; the first ones are used on paid orders."""
    events = [
        event(
            "campaign.events",
            "published",
            0,
            30,
            campaign_id="sale",
            name="Sale <b>of</b> the day",
            currency="CNY",
            coupon_type="cash",
            face_value_minor=DISCOUNT,
            quantity=100,
        )
    ]
    for n in range(COUPONS):
        coupon, user = {"coupon_id": f"c-{n}"}, f"{SECRET}{n}"
        events.append(
            event(
                "coupon.events",
                "created",
                n,
                20,
                **coupon,
                campaign_id="sale",
                coupon_type="cash",
                face_value_minor=DISCOUNT,
                currency="CNY",
            )
        )
        events.append(event("coupon.events", "issued", n, 19, **coupon, channel="app"))
        events.append(event("coupon.events", "claimed", n, 10, **coupon, user_id=user, channel="app"))
        if n < USED:
            events.append(
                event(
                    "order.events",
                    "paid",
                    n,
                    4,
                    order_id=f"o-{n}",
                    user_id=user,
                    currency="CNY",
                    gross_minor=PRICE,
                    net_minor=PRICE - DISCOUNT,
                    coupon_ids=[f"c-{n}"],
                    discounts=[{"kind": "coupon", "amount_minor": DISCOUNT}],
                )
            )
            events.append(
                event(
                    "coupon.events",
                    "used",
                    n,
                    5,
                    **coupon,
                    user_id=user,
                    order_id=f"o-{n}",
                    discount_minor=DISCOUNT,
                    currency="CNY",
                )
            )
    return events


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("site")) as service:
        with SettingsStore(settings_file(service.database)) as store:
            for role in PEOPLE:
                store.add_person(role, role=role, password=PASSWORD)
            store.add_person("narrow", role="manager", scope={"campaign": ["other"]}, password=PASSWORD)
        reply = service.publish(world())
        assert reply.status == 200, reply.body
        wait = reply.json["wait_for"]
        assert service.get("/v1/questions/campaigns", headers={"Wait-For": wait}).status == 200
        yield service


@pytest.fixture
def visitor(site: Service) -> Browser:
    return Browser(site)


@pytest.fixture(scope="module")
def signed_in(site: Service) -> Mapping[str, Browser]:
    """A browser for each role."""
    browsers = {}
    for role in (*PEOPLE, "narrow"):
        browsers[role] = Browser(site)
        assert browsers[role].sign_in(role).status == 303
    return browsers


# ── Who gets in ──────────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_sees_a_page_without_signing_in(visitor: Browser) -> None:
    """Else whoever reaches the address reads what coupons cost."""
    for path in PAGES:
        answer = visitor.get(path)
        assert answer.status == 303 and answer.headers["location"].startswith("/sign-in?next="), path
    assert visitor.get("/now", **{"X-Fragment": "main"}).status == 401
    assert visitor.get("/live").status == 401
    page = visitor.get("/sign-in")
    assert page.status == 200 and "commit" not in page.text.partition("<main")[2]


def test_signing_in_leads_to_where_one_wanted_to_go(visitor: Browser) -> None:
    """Else a link from a colleague ends at the first page."""
    answer = visitor.sign_in("admin")
    assert (answer.status, answer.headers["location"]) == (303, "/campaigns")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert visitor.get("/campaigns").status == 200


@pytest.mark.parametrize(
    "back", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_signing_in_leads_nowhere_else(visitor: Browser, back: str) -> None:
    """Else a link to our sign-in sends people, once they trust it, to a page that asks for their password again."""
    form = {"name": "admin", "password": PASSWORD, "back": back}
    assert visitor.ask("POST", "/sign-in", form).headers["location"] == "/now"


def test_a_wrong_password_and_a_wrong_name_get_the_same_answer(site: Service) -> None:
    """Else somebody can find out who has an account."""
    pages = []
    for name in ("manager", "nobody"):
        answer = Browser(site).sign_in(name, "wrong password")
        assert answer.status == 401
        pages.append(re.sub(r'value="[^"]*"', "", answer.text))
    assert pages[0] == pages[1]


def test_tries_are_limited(site: Service) -> None:
    """Else a password can be guessed."""
    statuses = [Browser(site).sign_in("guessed", f"guess {n}").status for n in range(8)]
    assert statuses[0] == 401 and statuses[-1] == 429


def test_a_form_of_another_page_is_refused(site: Service, signed_in: Mapping[str, Browser]) -> None:
    """Else a page that somebody visits can sign them in or out, or change something with their cookie."""
    form = {"name": "admin", "password": PASSWORD, "back": "/now"}
    assert Browser(site).ask("POST", "/sign-in", form, Origin="https://evil.example").status == 403
    out = signed_in["ops"].ask("POST", "/sign-out", {"csrf": "x"})
    assert out.status == 403
    assert signed_in["ops"].get("/now").status == 200


def test_signing_out_ends_the_session(visitor: Browser) -> None:
    """Else the next person at the desk reads on."""
    visitor.sign_in("admin")
    kept = dict(visitor.cookies)
    found = re.search(r'name="csrf" value="([^"]+)"', visitor.get("/now").text)
    assert found is not None
    assert visitor.ask("POST", "/sign-out", {"csrf": found[1]}).status == 303
    visitor.cookies = kept
    assert visitor.get("/now").status == 303


def test_who_signed_in_is_recorded(site: Service, signed_in: Mapping[str, Browser]) -> None:
    """Else nobody can find out later who was there."""

    def recorded() -> set[tuple[str, str]]:
        rows = site.get("/v1/questions/operations").json["rows"]
        return {(row["action"], row["operator"]) for row in rows}

    wait_until(lambda: ("signed_in", "risk") in recorded(), "the record of the sign-in")


# ── What is shown ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_shown(signed_in: Mapping[str, Browser], path: str, lang: str) -> None:
    """Else a page that nobody looked at fails for whoever opens it first."""
    admin = signed_in["admin"]
    answer = admin.get(f"{path}{'&' if '?' in path else '?'}lang={lang}")
    assert answer.status == 200, answer.text[:2_000]
    assert f'lang="{"zh-CN" if lang == "zh" else "en"}"' in answer.text
    assert "style=" not in answer.text and "<b>of</b>" not in answer.text
    fragment = admin.get(path, **{"X-Fragment": "main"})
    assert fragment.status == 200 and '<nav class="pages"' not in fragment.text


@pytest.mark.parametrize("role", PEOPLE)
def test_a_role_sees_its_pages_and_no_others(signed_in: Mapping[str, Browser], role: str) -> None:
    """Else marketing reads the devices of customers, or finance cannot open its own page."""
    bar = signed_in[role].get("/now").text
    for path in (path for path in MAKERS if "{" not in path and path not in ("/why",)):
        allowed = path not in FORBIDDEN[role]
        assert (signed_in[role].get(path).status == 200) == allowed, path
        assert (f'href="{path}"' in bar) == allowed, path


@pytest.mark.parametrize("role", ["marketing", "finance", "manager"])
def test_a_role_without_personal_data_sees_no_user(signed_in: Mapping[str, Browser], role: str) -> None:
    """Else whoever plans campaigns reads who bought what."""
    for path in PAGES:
        if SECRET in path:
            continue
        for headers in ({}, {"X-Fragment": "main"}):
            assert SECRET not in signed_in[role].get(path, **headers).text, path
    asked = signed_in[role].get(f"/users/{SECRET}1")
    assert asked.status in (403, 404)


def test_a_scope_hides_what_is_outside_it(signed_in: Mapping[str, Browser]) -> None:
    """Else a shop reads the sales of another."""
    narrow = signed_in["narrow"]
    assert narrow.get("/campaigns/sale").status in (403, 404)
    for path in ("/now", "/campaigns", "/explore?metric=claimed_events&by=campaign", "/search?q=sale"):
        shown = narrow.get(path).text
        assert "/campaigns/sale" not in shown and "Sale &lt;b&gt;" not in shown, path


def test_the_numbers_of_now_are_those_of_the_events(signed_in: Mapping[str, Browser]) -> None:
    """Else people decide by numbers that are wrong. The world is small enough to be counted by hand."""
    text = signed_in["admin"].get("/now?period=7d&lang=en").text
    cards = re.findall(r'class="card-number"[^>]*>([^<]+)<', text)
    shown = [unescape(one).replace("\u00a0", " ") for one in cards]
    assert shown[:4] == [f"{COUPONS}", f"{USED}", "¥ 2.4 k", "¥ 180"]  # 12 × 200 yuan, 12 × 15 yuan


def test_a_page_shows_a_new_event(site: Service, signed_in: Mapping[str, Browser]) -> None:
    """Else people look at numbers that stand still."""
    admin = signed_in["admin"]
    site.publish(event("coupon.events", "issued", 900, 0, coupon_id="c-900", channel="app"))

    def shown() -> bool:
        return admin.get("/coupons/c-900", **{"X-Fragment": "main"}).status == 200

    wait_until(shown, "the coupon's page")


# ── Odd requests ─────────────────────────────────────────────────────────────────────────────────────────────

ODD = (
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "\x00",
    "a" * 5_000,
    "优惠券🎟",
    "%",
    "{{7*7}}",
    "-1",
    "1e309",
    "2026-02-30",
    "9999-12-31T23:59:59.999999",
)
NAMES = (
    "period",
    "against",
    "campaign",
    "channel",
    "known_at",
    "at",
    "metric",
    "by",
    "grain",
    "tab",
    "sort",
    "cause",
    "known",
    "clock",
    "speed",
    "q",
    "state",
    "severity",
    "currency",
    "lang",
    "zone",
    "status",
)


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_parameter_is_no_error_of_the_program(signed_in: Mapping[str, Browser], name: str) -> None:
    """Else a link with a slip in it shows a page of an internal error, or worse, what it should not."""
    for path in ("/now", "/explore", "/why", "/replay", "/alerts", "/finance", "/search", "/campaigns/sale"):
        for value in ODD:
            answer = signed_in["admin"].get(f"{path}?{urlencode({name: value})}")
            said = signed_in["admin"].service.said[-60:]
            assert answer.status < 500 or answer.status == 504, (path, name, value, answer.text[:500], said)
            assert "<script>alert" not in answer.text, (path, name, value)


@pytest.mark.parametrize("path", ["/campaigns/", "/coupons/", "/orders/", "/users/", "/alerts/"])
def test_an_odd_name_in_the_path_is_no_error_of_the_program(signed_in: Mapping[str, Browser], path: str) -> None:
    """Else a mistyped id shows an internal error."""
    for value in ODD:
        answer = signed_in["admin"].get(path + quote(value, safe=""))
        assert answer.status in (400, 404, 405, 422), (path, value, answer.status)
        assert "<script>alert" not in answer.text, (path, value)


def test_no_page_without_a_consumer_is_an_error_of_the_program(home: Path) -> None:
    """Else people see an internal error while the consumer restarts, instead of what happens."""
    done("init")
    with serving(home, "--no-consume", wait=False) as service:
        with SettingsStore(settings_file(service.database)) as store:
            store.add_person("admin", role="admin", password=PASSWORD)
        browser = Browser(service)
        wait_until(lambda: browser.sign_in("admin").status == 303, "the service")
        answer = browser.get("/now")
        assert answer.status == 503 and "does not answer" in answer.text
