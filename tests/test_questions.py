"""`user`, `order`, `campaigns show` and the filters of `coupons`: what the service desk and marketing look at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from coupon_ledger.cli.export import write_parquet
from coupon_ledger.ledger.errors import QueryStopped
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.questions.registry import Answer, AsOf
from coupon_ledger.questions.states.parameters import OneCampaign
from coupon_ledger.questions.states.states import campaign
from tests.command_line import DATABASE, LOG, coupon_event, done, ledger, ndjson, one_sentence
from tests.folding import fold_in, scratch_store
from tests.histories import history

Data = dict[str, Any]


def sale() -> list[Data]:
    """Two people who are one, an order with coupons, a campaign with a stock of three that changes its rules."""
    rules = {"topic": "campaign.events", "source": "plan", "campaign_id": "k-1"}
    order = {"topic": "order.events", "source": "shop", "order_id": "o-1", "currency": "CNY"}
    link = {"topic": "user.events", "source": "crm", "type": "linked", "occurred_at": "2026-11-10T00:00:00Z"}
    until = {"valid_until": "2026-11-30T00:00:00Z"}
    taken = [
        coupon_event("claimed", f"{c}-3", coupon_id=c, user_id=u, occurred_at=f"2026-11-11T10:0{n}:30Z")
        for n, (c, u) in enumerate([("c-1", "u-1"), ("c-2", "m-1"), ("c-3", "u-1"), ("c-4", "u-2")])
    ]
    return [
        {**rules, "type": "published", "event_id": "r-1", "occurred_at": "2026-11-01T00:00:00Z", "name": "K",
         "coupon_type": "cash", "quantity": 3, "per_user_limit": 2},
        {**rules, "type": "amended", "event_id": "r-2", "occurred_at": "2026-11-02T00:00:00Z", "per_user_limit": 5,
         "quantity": 3},
        {**link, "event_id": "l-1", "user_id": "u-1", "alias_id": "phone-1"},
        {**link, "event_id": "l-2", "user_id": "m-1", "alias_id": "phone-1"},
        *(coupon_event("created", f"c-{n}-1", coupon_id=f"c-{n}", **(until if n != 3 else {})) for n in range(1, 6)),
        *(coupon_event("issued", f"c-{n}-2", coupon_id=f"c-{n}", channel="app" if n < 5 else "shop",
                       occurred_at="2026-11-11T09:00:00Z") for n in range(1, 6)),
        *taken,
        coupon_event("used", "c-1-4", coupon_id="c-1", occurred_at="2026-11-11T11:00:00Z"),
        coupon_event("used", "c-1-5", coupon_id="c-1", occurred_at="2026-11-11T11:00:01Z"),
        {**order, "type": "paid", "event_id": "p-1", "occurred_at": "2026-11-11T11:00:00Z", "user_id": "u-1",
         "gross_minor": 3000, "net_minor": 2500, "coupon_ids": ["c-1", "c-9"],
         "discounts": [{"kind": "coupon", "amount_minor": 400}, {"kind": "member", "amount_minor": 100}]},
        coupon_event("created", "x-1", coupon_id="x-1", occurred_at="2026-09-01T00:00:00Z", campaign_id="k-0"),
        coupon_event("expired", "x-2", coupon_id="x-1", occurred_at="2026-09-02T00:00:00Z"),
        coupon_event("expired", "c-5-4", coupon_id="c-5", occurred_at="2026-11-11T11:30:00Z"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("sale")
    at = ("--log", f"sqlite:///{made / LOG}")
    done("init", *at, "--database", made / DATABASE)
    done("publish", "-", *at, stdin=ndjson(sale()))
    done("consume", *at, "--database", made / DATABASE)
    with open_database(made / DATABASE, read_only=True):  # commands of this process share what DuckDB has open
        yield made


@pytest.fixture(autouse=True)
def at_sale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUPON_LEDGER_DATABASE", str(folder / DATABASE))


@pytest.mark.long
@pytest.mark.parametrize("asked", ["u-1", "m-1", "phone-1"])
def test_a_person_is_found_under_every_linked_id(asked: str) -> None:
    """Else a customer who calls with a member number would be told that there are no coupons."""
    person = done("user", asked, "-o", "json").json
    assert {asked, *person["linked"]} == {"u-1", "m-1", "phone-1"}
    assert {c["coupon_id"]: c["standing"] for c in person["coupons"]} == {
        "c-1": "used",
        "c-2": "usable",
        "c-3": "usable",
    }
    assert (person["usable"], person["used"], person["expired"]) == (2, 1, 0)
    assert [row["coupon_id"] for row in done("user", asked, "-o", "ndjson").rows] == ["c-2", "c-3", "c-1"]
    assert "usable" in done("user", asked).out


@pytest.mark.long
def test_usable_is_by_validity_and_the_datas_clock(tmp_path: Path) -> None:
    """Else a coupon that ran out an hour ago, with its expiry not yet told, would be promised to a customer."""
    at = ("--log", f"sqlite:///{tmp_path / LOG}")
    database = ("--database", tmp_path / DATABASE)
    clock = "2026-11-11T12:00:00Z"
    validity = {
        "over": {"valid_until": "2026-11-11T11:59:59Z"},
        "last": {"valid_until": clock},
        "first": {"valid_from": clock},
        "early": {"valid_from": "2026-11-11T12:00:01Z"},
        "always": {},
    }
    events = [
        coupon_event(kind, f"{name}-{kind}", coupon_id=name, **(given if kind == "created" else {"user_id": "u-1"}))
        for name, given in validity.items()
        for kind in ("created", "issued")
    ]
    done("init", *at, *database)
    events.append(coupon_event("created", "clock", coupon_id="clock", occurred_at=clock))
    done("publish", "-", *at, stdin=ndjson(events))
    done("consume", *at, *database)
    standing = {c["coupon_id"]: c["standing"] for c in done("user", "u-1", *database, "-o", "json").json["coupons"]}
    assert standing == {
        "over": "expired", "last": "usable", "first": "usable", "early": "not_yet", "always": "usable"
    }  # fmt: skip


@pytest.mark.long
def test_an_order_shows_its_coupons_and_what_is_wrong() -> None:
    """Else nobody could tell a customer why the discount is another than promised."""
    order = done("order", "o-1", "-o", "json").json
    assert (order["status"], order["coupon_discount_minor"], order["coupons_discount_minor"]) == ("paid", 400, 500)
    told = {c["coupon_id"]: (c["state"], c["on_order"], c["named"]) for c in order["coupons"]}
    assert told == {"c-1": ("used", True, True), "c-9": (None, False, True)}
    assert {(v["violation"], v["event_id"]) for v in order["violations"]} == {
        ("used_when_used", "c-1-5"),
        ("discount_mismatch", "p-1"),
        ("unrecorded_use", "p-1"),
    }
    shown = done("order", "o-1").out
    assert "used_when_used" in shown and "member" in shown


@pytest.mark.long
def test_a_campaign_shows_stock_rules_claims_and_its_account() -> None:
    """Else marketing would learn of an empty stock from its customers."""
    shown = done("campaigns", "show", "k-1", "-o", "json").json
    assert (shown["quantity"], shown["coupons"], shown["entered"], shown["stock_left"]) == (3, 5, 4, -1)
    assert [(v["rule_version"], v["changed"]) for v in shown["versions"]] == [
        ("r-1", {"name": "K", "coupon_type": "cash", "quantity": 3, "per_user_limit": 2}),
        ("r-2", {"per_user_limit": 5}),
    ]
    assert (shown["peak_claims_per_minute"], shown["peak_at"]) == (1, "2026-11-11T10:00:00.000000Z")
    assert shown["last_hour_claims_per_minute"] == 0
    assert shown["broken"] == [
        {"violation": rule, "scope": scope, "violations": 1}
        for rule, scope in [("over_issue", "cross"), ("used_when_used", "coupon")]
    ], "what does not match its order is told by `violations`"
    [_, listed] = done("campaigns", "-o", "json").json
    assert shown["violations"] == listed["violations"] == 2, "a sale of too many coupons is no campaign without a fault"
    assert {s["state"]: s["coupons"] for s in shown["states"] if s["coupons"]} == {
        "claimed": 3,
        "used": 1,
        "expired": 1,
    }
    assert all(c["ok"] for c in shown["conservation"])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--channel", "shop"), ["c-5"]),
        (("--user", "u-1"), ["c-1", "c-3"]),
        (("--type", "gift"), []),
        (("--since", "2026-11-11T11:00:01Z"), ["c-1", "c-5"]),
        (("--until", "2026-11-11T18:00:30+08:00"), ["x-1"]),
        (("--until", "2026-11-01"), ["x-1"]),
        (("--since", "2026-11-11T10:00:00Z", "--until", "2026-11-11T11:00:01Z"), ["c-2", "c-3", "c-4"]),
    ],
    ids=" ".join,
)
def test_coupons_are_filtered(arguments: tuple[str, ...], found: list[str]) -> None:
    assert [row["coupon_id"] for row in done("coupons", *arguments, "-o", "ndjson").rows] == found


@pytest.mark.long
def test_those_that_ended_long_ago_are_left_out_for_people_alone() -> None:
    """Else today's coupons would drown in last year's; or an export would lack them."""
    table = done("coupons")
    assert "x-1" not in table.out and "c-5" in table.out and table.err.splitlines()[-1].startswith("1 that ended")
    assert "x-1" in done("coupons", "--all").out
    for output in ("json", "ndjson", "csv"):
        assert "x-1" in done("coupons", "-o", output).out
    assert sum(row["coupons"] for row in done("coupons", "--count", "-o", "json").json) == 6


@pytest.mark.long
def test_a_count_of_users_says_that_some_are_one_person() -> None:
    """u-1 and m-1 are one and claimed twice: three claimed, of whom two are the same."""
    ran = done("metrics", "query", "claimed_users", "-o", "json")
    assert [row["claimed_users"] for row in ran.json] == [3] and "2 ids are linked to 2 users" in ran.err
    for asked in (("claimed_events",), ("claimed_users", "--at", "2026-11-09T00:00:00Z")):
        assert "linked" not in done("metrics", "query", *asked).err, "none of these, none linked yet"


@pytest.mark.parametrize("command", [("user",), ("order",), ("campaigns", "show")], ids=" ".join)
def test_what_nobody_has_heard_of_is_said_to_be_unknown(command: tuple[str, ...]) -> None:
    one_sentence(ledger(*command, "z-404"), 1, f"{command[0].rstrip('s')} z-404")


# ── The past ─────────────────────────────────────────────────────────────────────────────────────────────────

PAST = (("state", "c-1"), ("history", "c-1"), ("coupons",), ("campaigns",), ("campaigns", "show", "k-1"),
        ("user", "u-1"), ("order", "o-1"), ("violations",))  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("at", "state", "events"),
    [
        ("2026-11-11T00:00:00Z", "created", 1),
        ("2026-11-11T09:00:00Z", "issued", 2),
        ("2026-11-11T18:00:29.999999+08:00", "issued", 2),
        ("2026-11-11T18:00:30+08:00", "claimed", 3),
        ("2026-11-11T11:00:00Z", "used", 4),
        ("2026-11-12", "used", 5),
    ],
)
def test_a_coupon_at_an_instant(at: str, state: str, events: int) -> None:
    """Else a dispute about a day would be settled by what came after it."""
    row = done("state", "c-1", "--at", at, "-o", "json").json
    assert (row["state"], row["events"], row["violations"]) == (state, events, int(events == 5))
    assert row.keys() == done("state", "c-1", "-o", "json").json.keys()
    told = done("history", "c-1", "--at", at, "-o", "json").json
    assert [step["event_id"] for step in told] == [f"c-1-{n}" for n in range(1, events + 1)]
    listed = {c["coupon_id"]: c for c in done("coupons", "--at", at, "-o", "json").json}
    assert listed["c-1"] == row
    until = "until" if at.endswith(("Z", "30+08:00")) else "before"
    assert f"only what happened {until} 2026-11-1" in done("state", "c-1", "--at", at).err


@pytest.mark.slow
def test_totals_at_an_instant() -> None:
    """Else last Tuesday's report could not be drawn again."""
    noon = ("--at", "2026-11-11T10:02:00Z")
    counted = {s["state"]: s["coupons"] for s in done("coupons", "--count", *noon, "-o", "json").json}
    assert counted == {"issued": 3, "claimed": 2, "expired": 1}
    shown = done("campaigns", "show", "k-1", *noon, "-o", "json").json
    assert (shown["coupons"], shown["entered"], shown["stock_left"], shown["violations"]) == (5, 2, 1, 0)
    assert all(c["ok"] for c in shown["conservation"])
    before = done("campaigns", "show", "k-1", "--at", "2026-11-01T12:00:00Z", "-o", "json").json
    assert [v["rule_version"] for v in before["versions"]] == ["r-1"]
    [k_0, k_1] = done("campaigns", *noon, "-o", "json").json
    assert (k_0["campaign_id"], k_1["campaign_id"], k_1["claimed"], k_1["used"]) == ("k-0", "k-1", 2, 0)


@pytest.mark.long
def test_everything_at_an_instant() -> None:
    """Else nobody could say what stood in the books at midnight."""
    noon = ("--at", "2026-11-11T10:03:45Z")
    told = done("status", *noon, "-o", "json").json
    assert (told["coupons"], told["orders"], told["campaigns"], told["users"]) == (6, 0, 1, 2)
    assert {s["state"]: s["coupons"] for s in told["states"]} == {"issued": 1, "claimed": 4, "expired": 1}
    apart = {"superseded": 0, "explained": 0, "provisional": 0}
    assert told["broken"] == [{"violation": "over_issue", "violations": 1} | apart] and told["violations"] == 1
    campaign = done("campaigns", "show", "k-1", *noon, "-o", "json").json
    assert campaign["broken"] == [{"violation": "over_issue", "scope": "cross", "violations": 1}]
    assert told["data_clock"] == "2026-11-11T10:03:30.000000Z"
    shown = done("status", *noon)
    assert "over_issue" in shown.out and "only what happened until 2026-11-11 18:03:45" in shown.err
    assert ledger("status", *noon, "--watch").code == 2


@pytest.mark.long
def test_an_order_at_an_instant() -> None:
    then = done("order", "o-1", "--at", "2026-11-11T11:00:00Z", "-o", "json").json
    assert [(c["coupon_id"], c["state"]) for c in then["coupons"]] == [("c-1", "used"), ("c-9", None)]
    assert then["violations"] == []
    one_sentence(ledger("order", "o-1", "--at", "2026-11-11T10:59:59Z"), 1, "order o-1")


@pytest.mark.long
def test_all_coupons_as_a_parquet_file(tmp_path: Path) -> None:
    """Else who wants all of them at midnight would have to make columns of text again."""
    for past in ((), ("--at", "2026-11-11T10:02:00Z"), ("--at", "2020-01-01")):
        ran = done("coupons", *past, "--to", tmp_path / "c.parquet", "-o", "json")
        rows = done("coupons", *past, "-o", "ndjson").rows
        assert ran.out == f"{len(rows)} coupons written to {tmp_path / 'c.parquet'}\n"
        written = pl.read_parquet(tmp_path / "c.parquet").sort("coupon_id")
        instants = pl.col(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        assert written.with_columns(instants).to_dicts() == rows
    as_of = json.loads(pq.read_schema(tmp_path / "c.parquet").metadata[b"as_of"])
    positions = tmp_path / "as_of.json"
    positions.write_text(json.dumps({"as_of": as_of}))
    now = done("coupons", "-o", "json").json
    assert done("coupons", "--at-position", positions, "-o", "json").json == now
    one_sentence(ledger("coupons", "--to", tmp_path / "no" / "c.parquet"), 2, "c.parquet", "cannot be written")


def test_a_half_written_file_takes_no_place(tmp_path: Path) -> None:
    """Else last night's file would be gone, or be read as whole."""
    file = tmp_path / "c.parquet"
    file.write_text("before")

    def frames() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"coupon_id": ["c-1"]})
        raise QueryStopped("stopped")

    answer = Answer(AsOf(1, None, None, []), frames())
    with pytest.raises(QueryStopped):
        write_parquet(answer, file, lambda _: None)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("c.parquet", "before")]


@pytest.mark.long
def test_a_person_at_an_instant() -> None:
    assert done("user", "u-1", "--at", "2026-11-11T10:00:45Z", "-o", "json").json["usable"] == 1
    one_sentence(ledger("user", "m-1", "--at", "2026-11-09"), 1, "user m-1")


@pytest.mark.slow
def test_broken_rules_at_an_instant() -> None:
    """Rules across coupons too: the stock was not overdrawn before the fourth claim."""
    for at, codes in [
        ("2026-11-11T10:02:45Z", set()),
        ("2026-11-11T10:03:30Z", {"over_issue"}),
        ("2026-11-12", {"over_issue", "used_when_used", "discount_mismatch", "unrecorded_use"}),
    ]:
        found = done("violations", "--at", at, "-o", "json").json
        assert {v["violation"] for v in found} == codes, at
        scoped = done("violations", "--count", "--scope", "coupon", "--at", at, "-o", "json").json
        assert {v["violation"] for v in scoped} == codes & {"used_when_used"}


@pytest.fixture(scope="module")
def now(folder: Path) -> Callable[..., Any]:
    """What a command says of the sale now; the same every time."""
    return cache(lambda *command: done(*command, "-o", "json").json)


@pytest.mark.long
@pytest.mark.parametrize("command", PAST, ids=" ".join)
def test_what_was_known_when(command: tuple[str, ...], now: Callable[..., Any]) -> None:
    """Before anything was recorded nothing was known; by now all that is known, is."""
    later = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    assert done(*command, "--known-at", later, "--at", later, "-o", "json").json == now(*command)
    before = ledger(*command, "--known-at", "1d", "-o", "json")
    if len(command) == 1:
        assert before.json == []
    else:
        one_sentence(before, 1, command[-1])


@pytest.mark.slow
def test_what_the_log_held_before_a_position(folder: Path, now: Callable[..., Any]) -> None:
    """Else what a report was made of, by the positions that it names, could not be shown again."""
    [*before, _, last] = done("history", "c-1", "-o", "json").json
    place = f"coupon.events:{last['partition']}:{last['offset']}"
    told = done("history", "c-1", "--at-position", place, "-o", "json").json
    assert [step["event_id"] for step in told] == [*(step["event_id"] for step in before), "c-1-4"]
    ran = done("state", "c-1", "--at-position", place)
    assert f"only what the log held before {place}" in ran.err
    one_sentence(ledger("order", "o-1", "--at-position", "user.events:0:0"), 1, "order o-1")
    [row] = done("diff", "--from-position", place, "--campaign", "k-1", "-o", "json").json[:1]
    assert (row["coupon_id"], row["event_ids"]) == ("c-1", ["c-1-5"])

    one_sentence(ledger("diff", "--from-position", place, "--to-position", "user.events:0:0"), 2, "is later than")

    status = folder / "status.json"
    status.write_text(done("status", "--log", f"sqlite:///{folder / LOG}", "-o", "json").out)
    for command in PAST:
        assert done(*command, "--at-position", str(status), "-o", "json").json == now(*command)
    assert done("diff", "--from-position", str(status), "-o", "json").json == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("state", "c-1", "--at-position", "coupon.events:0"), ["no file"]),
        (("state", "c-1", "--at-position", "coupon.alerts:0:1"), ["position coupon.alerts:0:1"]),
        (("state", "c-1", "--at-position", "coupon.events:0:99999"), ["99999", "has read this partition up to"]),
        (("coupons", "--at-position", "user.events:0:0", "--at-position", "user.events:0:1"), ["twice"]),
        (("diff", "--to-position", "user.events:0:0", "--from", "1d"), ["--to-position without --from-position"]),
    ],
)
def test_positions_that_are_none_are_refused(command: tuple[str, ...], words: list[str]) -> None:
    one_sentence(ledger(*command), 2, *words)


def test_a_forgotten_place_for_the_instant_is_refused() -> None:
    """Else the campaign would be shown as it is now, without a word."""
    ran = ledger("campaigns", "--at", "2026-11-11", "show", "k-1")
    assert ran.code == 2 and "come after `show`" in ran.err


@pytest.mark.long
def test_what_changed_between_two_instants() -> None:
    """Else nobody could say which events moved yesterday's figures."""
    between = ("diff", "--from", "2026-11-11T10:01:00Z", "--to", "2026-11-11T11:00:00Z")
    found = {row["coupon_id"]: row for row in done(*between, "-o", "json").json}
    assert {c: (r["before"], r["after"], r["event_ids"]) for c, r in found.items()} == {
        "c-1": ("claimed", "used", ["c-1-4"]),
        "c-2": ("issued", "claimed", ["c-2-3"]),
        "c-3": ("issued", "claimed", ["c-3-3"]),
        "c-4": ("issued", "claimed", ["c-4-3"]),
    }
    assert found["c-2"]["changed"] == {
        "owner": [None, "m-1"],
        "claim_channel": [None, "app"],
        "claimed_at": [None, "2026-11-11T10:01:30.000000Z"],
    }
    assert "claimed → used" in done(*between).out
    assert done(*between, "--campaign", "k-0", "-o", "json").json == []
    learned = done("diff", "--known-from", "1d", "-o", "ndjson").rows
    assert {row["coupon_id"]: row["before"] for row in learned} == dict.fromkeys(
        [f"c-{n}" for n in range(1, 6)] + ["x-1"]
    )


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((), "--from, --known-from or --from-position"),
        (("--to", "2026-11-11", "--known-from", "1d"), "--to without --from"),
        (("--from", "1d", "--known-to", "1d"), "--known-to without --known-from"),
        (("--from", "2026-11-12", "--to", "2026-11-11"), "--from is later than --to"),
    ],
)
def test_bounds_that_do_not_go_together_are_refused(bounds: tuple[str, ...], words: str) -> None:
    one_sentence(ledger("diff", *bounds), 2, words)


INSTANTS = [
    *((command, option) for command in PAST for option in ("--at", "--known-at")),
    *((("diff", "--from", "1d", "--known-from", "1d"), option) for option in ("--from", "--known-from")),
]
INSTANTS += [
    (command, option)
    for command in (("coupons",), ("violations",), ("expiries",), ("tail", "--no-follow"))
    for option in ("--since", "--until")
    if (command[0], option) != ("tail", "--until")
]


SPELT = ("2026-11-11", "2026-11-11t18:00:00.5+08:00", "90s", "15m", "2h", "1d")
NO_INSTANTS = (
    ("yesterday", "must be an RFC 3339 instant"),
    ("2026-11-11T10:00:00", "time zone"),
    ("2026-02-30", "is no instant"),
    ("15 m", "such as 15m"),
    ("999999999d", "before the year 1"),
)
SPELT_IN_TURN = [(*asked, SPELT[n % len(SPELT)], NO_INSTANTS[n % len(NO_INSTANTS)]) for n, asked in enumerate(INSTANTS)]


@pytest.mark.parametrize(("command", "option", "instant", "wrong"), SPELT_IN_TURN)
def test_every_command_reads_instants_alike(
    folder: Path, command: tuple[str, ...], option: str, instant: str, wrong: tuple[str, str]
) -> None:
    """Else what one command taught would be refused by the next, or be off by hours without a word."""
    at = ("--log", f"sqlite:///{folder / LOG}") if command[0] == "tail" else ()
    ran = ledger(*command, option, instant, *at)
    # Nothing may have been known of it yet; wrong usage ends with 2.
    assert ran.code == 0 or (ran.code == 1 and f"{command[-1]}: " in ran.err), ran.err
    one_sentence(ledger(*command, option, wrong[0], *at), 2, option, repr(wrong[0]), wrong[1])


@pytest.mark.long
def test_how_long_ago_counts_back_from_now(tmp_path: Path) -> None:
    """Else `--since 15m` would show another quarter of an hour than the last."""
    at = ("--log", f"sqlite:///{tmp_path / LOG}")
    database = ("--database", tmp_path / DATABASE)
    done("init", *at, *database)
    now = datetime.now(UTC)
    events = [
        coupon_event("created", f"{ago}", coupon_id=f"c-{ago}", occurred_at=(now - timedelta(minutes=ago)).isoformat())
        for ago in (40, 80)
    ]
    done("publish", "-", *at, stdin=ndjson(events))
    done("consume", *at, *database)
    for ago, found in (("90m", ["c-40", "c-80"]), ("1h", ["c-40"]), ("60s", [])):
        rows = done("coupons", "--since", ago, *database, "-o", "ndjson").rows
        assert [row["coupon_id"] for row in rows] == found


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_a_campaigns_account_balances_whatever_happened(tmp_path: Path, seed: int) -> None:
    """`conservation` counts entries and exits from events and violations; the fold must come to the same."""
    drawn = history(COUPON, seed, 1_500, keys=150)
    with scratch_store(tmp_path) as store:
        fold_in(store, apply, COUPON, drawn.batches)
        [row] = campaign(store, OneCampaign(campaign="k-1")).to_dicts()
    assert [c for c in row["conservation"] if not c["ok"]] == []
    assert row["conservation"][0]["counted"] > 10


_INTERRUPTED = """
import os, signal, sys, threading
from pathlib import Path
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store

database = Path(sys.argv[1])
create_database(database)
with open_database(database) as store:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        store.rows("SELECT count(*) FROM (SELECT hash(range) AS h FROM range(100000000) GROUP BY h)")
    except KeyboardInterrupt:
        print("interrupted", store.rows("SELECT 1"))
"""


@pytest.mark.slow
def test_ctrl_c_while_the_database_works_is_an_interruption(tmp_path: Path) -> None:
    """Else whoever stops a long command reads a traceback, and a rebuild throws away what it has built."""
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path / "x.duckdb")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout == "interrupted [(1,)]\n", ran.stderr


_WITHOUT_PANDAS = """
import sys
from pathlib import Path
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store

database = Path(sys.argv[1])
create_database(database)
with open_database(database) as store:
    print(store.frame("SELECT $x AS x", {"x": 1}).rows(), "pandas" in sys.modules)
import pandas
"""


@pytest.mark.slow
def test_no_command_waits_for_pandas_to_be_imported(tmp_path: Path) -> None:
    """DuckDB imports it for the first parameter of a query, which took a third of a command's time."""
    command = [sys.executable, "-c", _WITHOUT_PANDAS, str(tmp_path / "x.duckdb")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.stdout, ran.stderr) == ("[(1,)] False\n", "")


@pytest.mark.long
def test_coupons_are_found_by_the_code_that_a_person_types(home: Path) -> None:
    """At the till nobody knows a coupon's id."""
    done("init")
    told = [
        coupon_event("created", "e-1", coupon_id="c-1", code="SAVE20"),
        coupon_event("created", "e-2", coupon_id="c-2", occurred_at="2026-11-12T00:00:00Z"),
        coupon_event("issued", "e-3", coupon_id="c-2", occurred_at="2026-11-13T00:00:00Z", code="SAVE20"),
        coupon_event("created", "e-4", coupon_id="c-3", code="save20"),
        coupon_event("created", "e-5", coupon_id="c-4"),
    ]
    done("publish", "-", stdin=ndjson(told))
    done("consume")

    def found(*more: str) -> list[tuple[str, str]]:
        rows = done("coupons", "--code", "SAVE20", "--output", "ndjson", *more).rows
        return [(row["coupon_id"], row["state"]) for row in rows]

    assert found() == [("c-1", "created"), ("c-2", "issued")]
    assert found("--state", "issued") == [("c-2", "issued")]
    assert found("--campaign", "k-9") == []
    assert found("--at", "2026-11-12T12:00:00Z") == [("c-1", "created")]
    assert done("coupons", "--code", "SAVE20", "--count", "--output", "ndjson").rows == [
        {"state": "created", "coupons": 1},
        {"state": "issued", "coupons": 1},
    ]
