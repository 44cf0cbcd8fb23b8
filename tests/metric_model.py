"""The metrics once more, in plain Python over lists: shares no code with `questions.metrics`, and knows zones by
`zoneinfo` alone. Small random worlds to hold the two against each other."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from coupon_ledger.ledger.lifecycle import Delivery, fold
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from tests.histories import positioned

Row = dict[str, Any]
START = datetime(2026, 10, 20, tzinfo=UTC)
DAYS = 24
TYPES = ("created", "issued", "claimed", "reserved", "used", "returned", "expired", "revoked", "extended")
REASONS = ("not_issued", "not_claimed", "not_used", "campaign_ended", "order_cancelled")
KINDS = ("acquisition", "media", "operation", "subsidy")
CHANNELS = ("app", "shop", "")
CURRENCIES = ("CNY", "USD")


@dataclass
class World:
    """Deliveries by topic, and what the model makes of them."""

    told: dict[str, list[Delivery]]

    @property
    def coupons(self) -> list[Row]:
        """Rows of the reference fold; `open`: put out for anybody by the event that issued it."""
        found = []
        for deliveries in _by_key(self.told[COUPON], "coupon_id"):
            folded = fold(deliveries)
            issue = [s.event for s in folded.steps if s.event["type"] == "issued" and s.before != s.after == "issued"]
            found.append(asdict(folded.coupon) | {"open": bool(issue) and issue[0].get("user_id") is None})
        return found

    @property
    def orders(self) -> list[Row]:
        found = []
        for deliveries in _by_key(self.told[ORDER], "order_id"):
            kinds = ("placed", "paid", "cancelled", "refunded")
            events = [d.event for d in deliveries]
            events.sort(key=lambda e: (e["occurred_at"], kinds.index(e["type"]), e["event_id"]))
            refunds = [e["refund_minor"] for e in events if e["type"] == "refunded"]
            row: Row = {"refunded_minor": sum(refunds), "refunded": bool(refunds)}
            for event in events:
                if event["type"] == "paid":
                    row.pop("cancelled_at", None)
                row |= {name: value for name, value in event.items() if value is not None}
                row.setdefault(f"{event['type']}_at", event["occurred_at"])
            found.append(row)
        return found

    def rows(self) -> dict[str, list[Row]]:
        """By kind: each with `at` and its dimensions beside what it is."""
        coupons, orders = self.coupons, self.orders
        events = [dict(d.event) for d in self.told[COUPON]]
        coupon_of = {c["coupon_id"]: c for c in coupons}
        order_of = {o["order_id"]: o for o in orders}
        segments = {d.event["user_id"]: json.loads(d.event["attributes"]).get("segment") for d in self.told[USER]}

        def of_coupon(c: Row, at: datetime | None) -> Row:
            order = order_of.get(c["order_id"], {})
            channel = c["claim_channel"] if c["claim_channel"] is not None else c["issue_channel"]
            dimensions = {
                "campaign": c["campaign_id"],
                "coupon_type": c["coupon_type"],
                "channel": channel,
                "segment": segments.get(c["owner"]),
                "store": order.get("store"),
                "region": order.get("region"),
            }
            return {**c, **dimensions, "at": at}

        def of_event(e: Row) -> Row:
            c = coupon_of[e["coupon_id"]]
            user = e.get("user_id") or c["owner"]
            order = order_of.get(e.get("order_id"), {})
            channels = [v for v in (e.get("channel"), c["claim_channel"], c["issue_channel"]) if v is not None]
            dimensions = {
                "campaign": c["campaign_id"],
                "coupon_type": c["coupon_type"],
                "channel": channels[0] if channels else None,
                "segment": segments.get(user),
                "store": order.get("store"),
                "region": order.get("region"),
            }
            return {**e, **dimensions, "reason": e.get("reason"), "holder": user, "at": e["occurred_at"]}

        used = [c for c in coupons if c["state"] == "used"]

        def of_order(o: Row) -> Row:
            on_it = [c for c in used if c["order_id"] == o["order_id"]]
            names = ("channel", "store", "region")
            return {
                **o,
                **{name: o.get(name) for name in names},
                "segment": segments.get(o["user_id"]),
                "at": o["paid_at"],
                "with_coupon": bool(on_it),
                "campaign": {c["campaign_id"] for c in on_it},
                "coupon_type": {c["coupon_type"] for c in on_it},
            }

        paid = [of_order(o) for o in orders if o.get("paid_at") and not o.get("cancelled_at")]
        sold = [o for o in paid if not _given_back(o)]
        costs = [d.event for d in self.told[CAMPAIGN] if d.event["type"] == "cost_booked"]
        return {
            "events": [of_event(e) for e in events],
            "created": [of_coupon(c, c["created_at"]) for c in coupons],
            "issued": [of_coupon(c, c["issued_at"]) for c in coupons],
            "owned": [of_coupon(c, c["acquired_at"]) for c in coupons],
            "claims": [of_coupon(c, c["claimed_at"]) | {"channel": c["claim_channel"]} for c in coupons],
            "uses": [
                of_coupon(c, c["used_at"])
                | {"currency": order_of.get(c["order_id"], {}).get("currency") or c["currency"]}
                for c in used
            ],
            "paid": paid,
            "paid_with_coupon": [o for o in paid if o["with_coupon"]],
            "orders": sold,
            "coupon_orders": [o for o in sold if o["with_coupon"]],
            "costs": [
                {**e, "at": e["occurred_at"], "campaign": e["campaign_id"], "channel": e.get("channel")} for e in costs
            ],
        }


def _by_key(deliveries: Iterable[Delivery], key: str) -> Iterable[list[Delivery]]:
    found: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.event[key], []).append(delivery)
    return found.values()


# --- what each metric is

Rows = dict[str, list[Row]]


def _of_type(rows: Rows, kind: str) -> list[Row]:
    return [e for e in rows["events"] if e["type"] == kind]


def _over(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator


def _quantile(values: Sequence[float], q: float) -> float | None:
    """Between the two nearest, by their distance."""
    if not values:
        return None
    ordered, place = sorted(values), q * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _waits(rows: list[Row], start: str, end: str) -> list[float]:
    return [(r[end] - r[start]).total_seconds() for r in rows if r[start] is not None]


def _net(orders: list[Row]) -> int:
    return sum(o["net_minor"] - o["refunded_minor"] for o in orders)


def _gmv(orders: list[Row]) -> int:
    return sum(o["gross_minor"] - max(min(o["refunded_minor"], o["net_minor"]), 0) for o in orders)


def _given_back(order: Row) -> bool:
    return bool(order["refunded"] and order["refunded_minor"] >= order["net_minor"])


def _cost(order: Row) -> int | None:
    """Without what came back: the same part as of the money, a half rounded up."""
    cost: int | None = order.get("cost_of_goods_minor")
    net: int = order["net_minor"]
    refunded: int = order["refunded_minor"]
    if cost is None or not refunded:
        return cost
    return math.floor(cost * ((net - refunded) / net) + 0.5)


def _known(orders: list[Row]) -> list[Row]:
    return [o for o in orders if o.get("cost_of_goods_minor") is not None]


def _goods(orders: list[Row]) -> int | None:
    return None if orders and not _known(orders) else sum(_cost(o) or 0 for o in _known(orders))


def _discount(rows: Rows) -> int:
    return sum(c["discount_minor"] for c in rows["uses"])


def _booked(rows: Rows) -> int:
    return sum(e["amount_minor"] for e in rows["costs"])


def _plain(rows: Rows) -> list[Row]:
    return [o for o in rows["orders"] if not o["with_coupon"]]


def _margin(rows: Rows) -> int | None:
    goods = _goods(rows["coupon_orders"])
    return None if goods is None else _net(_known(rows["coupon_orders"])) - goods


def _roi(rows: Rows) -> float | None:
    margin = _margin(rows)
    return None if margin is None else _over(margin - _booked(rows), _discount(rows) + _booked(rows))


def _in_state(rows: list[Row], state: str, reason: str | None = None) -> int:
    return sum(c["state"] == state and reason in (None, c["reason"]) for c in rows)


def _owned_events(rows: Rows) -> int:
    return len(rows["owned"])


def _open_events(rows: Rows) -> int:
    return sum(e.get("user_id") is None for e in _of_type(rows, "issued"))


Model = dict[str, Callable[[Rows], float | None]]


def model() -> Model:
    """Every metric over a source in time, and every formula over them but those per minute."""
    found: Model = {}
    for kind in TYPES:
        found[f"{kind}_events"] = lambda r, k=kind: len(_of_type(r, k))  # type: ignore[misc]
        found[f"{kind}_coupons"] = lambda r, k=kind: len({e["coupon_id"] for e in _of_type(r, k)})  # type: ignore[misc]
        who = "user_id" if kind in TYPES[:5] else "holder"
        found[f"{kind}_users"] = lambda r, k=kind, w=who: len({e[w] for e in _of_type(r, k) if e.get(w)})  # type: ignore[misc]
    for why in REASONS:
        events = lambda r, y=why: sum(e["reason"] == y for e in _of_type(r, "expired"))  # noqa: E731
        cohort = lambda r, y=why: _in_state(r["created"], "expired", y)  # noqa: E731
        found[f"expired_{why}_events"] = events
        found[f"expiry_rate_{why}"] = lambda r, f=events: _over(f(r), len(_of_type(r, "created")))  # type: ignore[misc]
        found[f"cohort_expired_{why}"] = cohort
        found[f"cohort_expiry_rate_{why}"] = lambda r, f=cohort: _over(f(r), len(r["created"]))  # type: ignore[misc]
    for q in (50, 90, 99):
        found[f"issue_to_claim_p{q}_s"] = lambda r, q=q: _quantile(
            _waits(r["claims"], "issued_at", "claimed_at"), q / 100
        )  # type: ignore[misc]
        found[f"claim_to_use_p{q}_s"] = lambda r, q=q: _quantile(_waits(r["uses"], "acquired_at", "used_at"), q / 100)  # type: ignore[misc]
    for kind in KINDS:
        found[f"{kind}_cost_minor"] = lambda r, k=kind: sum(
            e["amount_minor"] for e in r["costs"] if e["cost_kind"] == k
        )  # type: ignore[misc]
    return found | {
        "open_issued_events": _open_events,
        "owned_events": _owned_events,
        "claim_rate": lambda r: _over(len(_of_type(r, "claimed")), _open_events(r)),
        "net_used_events": lambda r: len(_of_type(r, "used")) - len(_of_type(r, "returned")),
        "use_rate": lambda r: _over(len(_of_type(r, "used")) - len(_of_type(r, "returned")), _owned_events(r)),
        "expiry_rate": lambda r: _over(len(_of_type(r, "expired")), len(_of_type(r, "created"))),
        "cohort_created": lambda r: len(r["created"]),
        "cohort_expired": lambda r: _in_state(r["created"], "expired"),
        "cohort_expiry_rate": lambda r: _over(_in_state(r["created"], "expired"), len(r["created"])),
        "cohort_issued": lambda r: len(r["issued"]),
        "cohort_issued_used": lambda r: _in_state(r["issued"], "used"),
        "cohort_issued_use_rate": lambda r: _over(_in_state(r["issued"], "used"), len(r["issued"])),
        "cohort_open_issued": lambda r: sum(c["open"] for c in r["issued"]),
        "cohort_claimed": lambda r: sum(c["open"] and c["claimed_at"] is not None for c in r["issued"]),
        "cohort_claim_rate": lambda r: _over(
            sum(c["open"] and c["claimed_at"] is not None for c in r["issued"]), sum(c["open"] for c in r["issued"])
        ),
        "cohort_owned": lambda r: len(r["owned"]),
        "cohort_used": lambda r: _in_state(r["owned"], "used"),
        "cohort_use_rate": lambda r: _over(_in_state(r["owned"], "used"), len(r["owned"])),
        "orders": lambda r: len(r["orders"]),
        "gmv_minor": lambda r: _gmv(r["paid"]),
        "net_sales_minor": lambda r: _net(r["orders"]),
        "average_order_minor": lambda r: _over(_net(r["orders"]), len(r["orders"])),
        "coupon_orders": lambda r: len(r["coupon_orders"]),
        "coupon_gmv_minor": lambda r: _gmv(r["paid_with_coupon"]),
        "coupon_net_sales_minor": lambda r: _net(r["coupon_orders"]),
        "average_order_with_coupon_minor": lambda r: _over(_net(r["coupon_orders"]), len(r["coupon_orders"])),
        "plain_orders": lambda r: len(_plain(r)),
        "plain_net_sales_minor": lambda r: _net(_plain(r)),
        "average_order_without_coupon_minor": lambda r: _over(_net(_plain(r)), len(_plain(r))),
        "coupon_order_share": lambda r: _over(len(r["coupon_orders"]), len(r["orders"])),
        "net_uses": lambda r: len(r["uses"]),
        "discount_cost_minor": _discount,
        "discount_share": lambda r: _over(_discount(r), _gmv(r["paid_with_coupon"])),
        "other_cost_minor": _booked,
        "cost_minor": lambda r: _discount(r) + _booked(r),
        "coupon_goods_cost_minor": lambda r: _goods(r["coupon_orders"]),
        "coupon_orders_without_goods_cost": lambda r: sum(
            o.get("cost_of_goods_minor") is None for o in r["coupon_orders"]
        ),
        "coupon_margin_minor": _margin,
        "simple_roi": _roi,
    }


# --- slices


def within(rows: Rows, keep: Callable[[Row], bool]) -> Rows:
    """Of each kind those that lie in time and that `keep` keeps."""
    return {kind: [r for r in those if r["at"] is not None and keep(r)] for kind, those in rows.items()}


def has(row: Row, dimension: str, value: Any, zone: ZoneInfo) -> bool:
    """Whether the row is in the slice."""
    if dimension in ("weekday", "hour_of_day"):
        local = row["at"].astimezone(zone)
        return bool(value == (local.isoweekday() if dimension == "weekday" else local.hour))
    mine = row.get(dimension)
    return bool(value in mine if isinstance(mine, set) else value == mine)


def bucket_of(at: datetime, grain: str, zone: ZoneInfo) -> str:
    """As the answers name it."""
    local = at.astimezone(zone)
    if grain in ("minute", "hour"):
        start = local.replace(second=0, microsecond=0, minute=0 if grain == "hour" else local.minute)
        return start.isoformat(" ", "minutes")
    if grain == "week":
        local -= timedelta(days=local.weekday())
    return local.strftime("%Y-%m" if grain == "month" else "%Y-%m-%d")


# --- worlds


def world(seed: int, coupons: int = 40) -> World:
    """Coupons, orders, costs and profiles of three weeks in which clocks are changed; lives mostly in order, some
    steps left out or told with an instant out of order, some values missing."""
    random_ = random.Random(f"metrics {seed}")
    number = iter(range(1_000_000))

    def event(at: datetime, kind: str, **fields: Any) -> Row:
        return {"event_id": f"e{next(number)}", "type": kind, "occurred_at": at, "source": "s", **fields}

    def moment() -> datetime:
        return START + timedelta(seconds=random_.randrange(DAYS * 86_400), microseconds=next(number))

    def maybe(value: Any) -> dict[str, Any]:
        return value if random_.random() < 0.7 else {}

    def user() -> str:
        return f"u-{random_.randrange(6)}"

    told: dict[str, list[Row]] = {COUPON: [], ORDER: [], CAMPAIGN: [], USER: []}
    for n in range(coupons):
        at = moment()
        for kind in (*TYPES[:7], *random_.sample(TYPES, 2)):
            if random_.random() < 0.25:
                continue
            at = (
                moment()
                if random_.random() < 0.1
                else at + timedelta(seconds=random_.randrange(200_000), microseconds=1)
            )
            order = {"order_id": f"o-{random_.randrange(30)}"}
            fields: dict[str, Any] = {
                "created": {"campaign_id": f"k-{n % 3}", "coupon_type": ("cash", "gift")[n % 2]}
                | maybe({"currency": random_.choice(CURRENCIES)}),
                "issued": {"channel": random_.choice(CHANNELS)} | maybe({"user_id": user()}),
                "claimed": {"channel": random_.choice(CHANNELS), "user_id": user()},
                "reserved": {"user_id": user(), **order},
                "used": {"user_id": user(), "discount_minor": random_.randrange(500), **order},
                "returned": order,
                "expired": {"reason": random_.choice(REASONS)},
                "revoked": {"reason": "risk"},
                "extended": {"valid_until": at + timedelta(days=5)} | maybe({"reason": "goodwill"}),
            }[kind]
            told[COUPON].append(event(at, kind, coupon_id=f"c-{n}", **fields))
    for n in range(30):
        at, gross, currency = moment(), random_.randrange(1, 9_000), random_.choice(CURRENCIES)
        bought = {
            "user_id": user(), "currency": currency, "gross_minor": gross, "net_minor": gross * 9 // 10,
            **maybe({"channel": random_.choice(CHANNELS)}), **maybe({"store": f"s-{n % 3}"}),
            **maybe({"region": f"r-{n % 2}"}), **maybe({"cost_of_goods_minor": gross // 2}),
        }  # fmt: skip
        for kind, chance in (("placed", 0.9), ("paid", 0.9), ("refunded", 0.2), ("cancelled", 0.1)):
            at += timedelta(seconds=random_.randrange(100_000), microseconds=1)
            more = {
                "placed": bought,
                "paid": bought,
                "refunded": {"refund_minor": random_.choice((gross // 3, gross // 3, gross * 9 // 10, gross * 2))},
                "cancelled": {"reason": "x"},
            }
            if random_.random() < chance:
                told[ORDER].append(event(at, kind, order_id=f"o-{n}", **more[kind]))
    for _ in range(8):
        cost = {"cost_kind": random_.choice(KINDS), "amount_minor": random_.randrange(-50, 500)}
        cost |= {"currency": random_.choice(CURRENCIES)} | maybe({"channel": random_.choice(CHANNELS)})
        told[CAMPAIGN].append(event(moment(), "cost_booked", campaign_id=f"k-{random_.randrange(3)}", **cost))
    for n in range(5):
        told[USER].append(
            event(moment(), "profiled", user_id=f"u-{n}", attributes=json.dumps(maybe({"segment": f"g-{n % 2}"})))
        )
    return World({topic: positioned(random_, events) for topic, events in told.items()})
