"""The parts of reports. A part has a title and a question whose answer it shows, and says which columns can be added
up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.text import Row


def one_currency(rows: list[Row]) -> Iterator[Row]:
    """Yield the rows of an answer about metrics, merged where possible. For each slice, the answer has one row with the
    counts, without a currency, and one row with the amounts for each currency. If a slice has amounts in only one
    currency, its two rows become one."""
    if not rows or "currency" not in rows[0]:
        yield from rows
        return
    currencies = {row["currency"] for row in rows} - {None}
    only_currency = currencies.pop() if len(currencies) == 1 else None
    slices: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        names = list(row)
        key = tuple(row[name] for name in names[: names.index("open")] if name != "currency")
        slices.setdefault(key, []).append(row)
    for slice_rows in slices.values():
        own = {row["currency"] for row in slice_rows} - {None}
        if len(own) > 1:
            yield from slice_rows
            continue
        merged: Row = {}
        for row in slice_rows:
            merged |= {name: value for name, value in row.items() if value is not None or name not in merged}
        yield merged | {"currency": own.pop() if own else only_currency}


ADDS_NOTHING: Final = "they add nothing to margin and ROI, which are too low by what they earned; --goods-rate helps"
"""The note for orders without a known cost of goods."""

WITHOUT_COST: Final = (
    "without_cost",
    "orders_without_cost",
    "lines_without_cost",
    "coupon_orders_without_cost",
    "coupon_orders_without_goods_cost",
)

ACCOUNTS: Final = {
    "orders": "orders and net sales",
    "coupon_discount": "discounts of coupons",
    "cash": "net sales and cash",
    "coupons": "coupons and their orders",
}

LINES: Final = {
    "paid_orders": "orders with a payment: cash, paid_minor",
    "cancelled": "cancelled since",
    "refunded_in_full": "refunded in full",
    "refunded_in_part": "refunds on orders that stand",
    "orders_that_stand": "orders that stand: margin, categories, customers, attribution, metrics orders",
    "without_a_coupon_in_use": "without a coupon in use",
    "orders_with_a_coupon": "orders with a coupon in use: metrics coupon_orders",
    "named_by_orders": "named by orders that stand",
    "returned_since": "of uses that were returned since",
    "named_by_coupons_alone": "of uses on orders that name no coupon discount",
    "on_orders_that_do_not_stand": "of coupons in use on orders that do not stand, or that nobody knows",
    "coupon_discounts": "discounts of coupons: split, kind coupon",
    "of_no_known_use": "named by orders, of no use that is known",
    "of_coupons_in_use": "of coupons in use: campaigns, budget, metrics discount_cost_minor, attribution",
    "net_sales": "net sales of orders that stand",
    "refunds_above_orders": "refunds above the order, or of cancelled orders beyond it",
    "refunds_without_payment": "refunds of orders that were never paid",
    "booked_costs": "booked costs",
    "cash_flow": "cash flow: cash, flow_minor",
    "coupons_in_use": "coupons in use: metrics net_uses",
    "further_coupons_of_an_order": "further coupons on the same order",
    "orders_with_its_coupons": "orders with such a coupon: metrics coupon_orders",
    "of_coupons_of_others": "parts of them that other campaigns' coupons are credited with",
    "orders_credited_by_redeemed": "orders credited: attribution, model redeemed",
}
"""What each line of a reconciliation counts, and which reports show it."""

WITHOUT_VALUE: Final = "{n:count} of the coupons that are out {n:have} no known face value: no amount includes them"

MOVES: Final = ("opening", "issued", "returned", "used", "expired", "revoked", "released", "closing")

DOUBTS: Final = {
    "order_names_unknown_coupon": (
        "order{n:s} with a coupon that nobody created",
        "the discount is in no campaign",
    ),
    "order_not_above_zero": ("paid order{n:s} of nothing or less", "counted as they are"),
    "refund_above_order": (
        "refund{n:s} above what was paid",
        "the order is refunded in full, no sale; cash has all that went out",
    ),
    "coupon_of_another_currency": (
        "coupon{n:s} used on an order of another currency",
        "the order's currency stands",
    ),
    "use_without_paid_order": (
        "use{n:s} whose order nobody has paid",
        "their discount counts, no sale does",
    ),
    "use_on_order_undone": (
        "coupon{n:s} still in use on an order cancelled or refunded in full",
        "their discount counts, no sale does",
    ),
    "use_that_order_does_not_tell": (
        "use{n:s} on an order whose discounts name no coupon",
        "they count on top of what the order says",
    ),
    "order_and_coupons_differ": (
        "order{n:s} with another coupon discount than that of their coupons",
        "what the order says beyond it is in no campaign; what was returned is no discount",
    ),
    "net_above_gross": ("order{n:s} paid above the list price", "counted as they are"),
    "coupon_ends_before_it_begins": (
        "coupon{n:s} whose validity ends before it begins",
        "no use is valid",
    ),
    "campaign_ends_before_it_begins": (
        "campaign{n:s} whose claim window ends before it begins",
        "no claim is in the window",
    ),
    "coupon_without_value": (
        "coupon{n:s} out whose value is not known",
        "in no face value, no liability",
    ),
    "budget_without_currency": (
        "campaign{n:s} with a budget that names no currency",
        "what is left is not known",
    ),
    "use_of_no_campaign": (
        "use{n:s} of a coupon that no event puts into a campaign",
        "in no campaign's figures",
    ),
    "refund_without_payment": (
        "refund{n:s} of an order that was never paid",
        "cash went out, no sale came in",
    ),
    "campaign_without_cost": (
        "campaign{n:s} for which no cost was booked",
        "the cost is the discount alone",
    ),
    "order_without_cost_of_goods": (
        "order{n:s} without a known cost of goods",
        "in no margin (--goods-rate)",
    ),
    "funding_not_whole": (
        "campaign{n:s} whose funders' shares are not 100%",
        "what is open has no funder; above 100% they share in proportion",
    ),
}
"""By doubt: what is odd about the data, and how reports count it."""


@dataclass(frozen=True)
class PartQuestion:
    """A question that a part asks. `takes`: which options of the command are parameters of the question; `fixed`:
    parameters that always have the same value."""

    question: str
    takes: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with which to ask the question. `options`: the options of the command, by name."""
        return {name: options[name] for name in self.takes if options.get(name) is not None} | dict(self.fixed)


@dataclass(frozen=True)
class Part:
    """One part of a report. `asks`, `takes`, `fixed`: the question whose answer the part shows, as in `PartQuestion`.
    `behind`: the question that lists the coupons, orders or people from which the numbers are computed. `sums`: the
    columns that can be added up to a total. `whole`: whether the total is asked for separately, since the rows cannot
    be added up. `by`: the default of the option `--by`."""

    title: str
    asks: str
    takes: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    behind: PartQuestion | None = None
    sums: tuple[str, ...] = ()
    whole: bool = False
    by: str = ""

    @property
    def main(self) -> PartQuestion:
        return PartQuestion(self.asks, self.takes, self.fixed)


_PERIOD: Final = ("since", "until")

_DISCOUNTS: Final = PartQuestion("finance-split", ("campaign", "limit", *_PERIOD), {"explain": True})

_ORDERS: Final = PartQuestion("finance-margin", ("goods_rates", "limit", *_PERIOD), {"explain": True})

_COUPONS: Final = PartQuestion("coupons", ("campaign", "limit"))

_PEOPLE: Final = PartQuestion("behaviour", ("campaign", "limit", *_PERIOD), {"explain": True})

_BOUGHT: Final = PartQuestion("customer-orders", ("limit",))

_SALES: Final = (
    "gross_minor",
    "refunded_minor",
    "net_sales_minor",
    "cost_minor",
    "margin_minor",
    "orders_without_cost",
)

_BOOKED: Final = ("acquisition_minor", "media_minor", "operation_minor", "subsidy_minor")

FINANCE: Final = {
    "split": Part(
        "Discounts",
        "finance-split",
        ("by", "campaign", "zone", "limit", *_PERIOD),
        by="kind",
        behind=_DISCOUNTS,
        sums=("discount_minor",),
    ),
    "margin": Part(
        "Net sales and margin",
        "finance-margin",
        ("by", "goods_rates", "zone", "limit", *_PERIOD),
        by="channel",
        behind=_ORDERS,
        sums=("orders", *_SALES),
    ),
    "categories": Part(
        "Categories: sales, discount, margin, sold below cost",
        "finance-categories",
        ("goods_rates", "limit", *_PERIOD),
        behind=_ORDERS,
        sums=(
            "net_minor",
            "refunded_minor",
            "net_sales_minor",
            "discount_minor",
            "line_discount_minor",
            "cost_minor",
            "margin_minor",
            "lines_without_cost",
            "below_cost",
            "lost_minor",
        ),
    ),
    "budget": Part(
        "Budget, spent, forecast",
        "finance-budgets",
        ("campaign", "days"),
        behind=PartQuestion("finance-budgets", ("campaign", "limit"), {"explain": True}),
        sums=(
            "budget_minor",
            "discount_minor",
            *_BOOKED,
            "spent_minor",
            "left_minor",
            "per_day_minor",
            "coupons_out",
            "without_value",
            "liability_minor",
        ),
    ),
    "cash": Part(
        "Cash by day",
        "finance-cash",
        ("zone", *_PERIOD),
        behind=_ORDERS,
        sums=("paid_minor", "refunded_minor", "cancelled_minor", *_BOOKED, "flow_minor", "discount_minor"),
    ),
    "losses": Part(
        "Money lost to broken rules (do not add the rows up)",
        "finance-losses",
        ("campaign",),
        behind=PartQuestion("finance-losses", ("campaign", "limit"), {"explain": True}),
    ),
    "refunds": Part("Refunds, and discounts clawed back", "finance-refunds", _PERIOD, behind=_ORDERS),
    "statement": Part(
        "Statement of the coupons that are out", "finance-statement", ("campaign", *_PERIOD), behind=_COUPONS
    ),
    "doubts": Part("What makes figures doubtful", "finance-doubts"),
    "reconciliation": Part("How the numbers join", "finance-reconciliation", ("campaign",)),
}

_CUSTOMERS: Final = tuple(
    "customers orders net_sales_minor sales_share coupon_discount_minor full_price_after projected_minor".split()
)

SEGMENTS: Final = {
    "rfm": Part(
        "Segments by recency, frequency and money (simple ROI is not incremental)",
        "customer-segments",
        ("goods_rates",),
        behind=_BOUGHT,
        sums=_CUSTOMERS,
    ),
    "tiers": Part("High value, active, bargain hunters", "customer-tiers", ("goods_rates",), behind=_BOUGHT),
    "at-use": Part("New and returning customers when they used a coupon", "customers-at-use", behind=_BOUGHT),
    "clusters": Part("K-means clusters, and how many there should be", "customer-clusters", behind=_BOUGHT),
    "use": Part("What goes with using coupons", "customer-drivers", fixed={"outcome": "use"}, behind=_BOUGHT),
    "repurchase": Part(
        "What goes with coming again",
        "customer-drivers",
        fixed={"outcome": "repurchase"},
        behind=_BOUGHT,
    ),
    "lapsing": Part("Customers about to lapse", "customers-lapsing", ("limit",), behind=_BOUGHT),
}

COHORTS: Final = {
    "retention": Part("Who came again, by month of the first order", "cohorts", ("zone",), behind=_BOUGHT),
    "coupon": Part(
        "Who came again, by month of the first use of a coupon",
        "cohorts",
        ("zone",),
        {"with_coupon": True},
        behind=_BOUGHT,
    ),
    "repurchase": Part("Coming again after the first use of a coupon", "repurchase", behind=_BOUGHT),
}

FUNNEL: Final = {
    "coupons": Part("How far coupons got", "campaigns", ("campaign",), behind=_COUPONS),
    "behaviour": Part("How far people got", "behaviour", ("campaign", *_PERIOD), behind=_PEOPLE),
}

_ROI_METRICS: Final = (
    "net_uses,coupon_orders,coupon_net_sales_minor,discount_cost_minor,other_cost_minor,coupon_margin_minor,simple_roi,"
    "coupon_orders_without_goods_cost"
)

_CHANNEL_METRICS: Final = "issued_events,claimed_events,net_uses,discount_cost_minor"

ROI: Final = {
    "campaigns": Part(
        "What campaigns earned and cost (simple ROI is not incremental)",
        "metrics",
        ("where", "goods_rates", *_PERIOD),
        {"by": "campaign", "names": _ROI_METRICS},
        behind=PartQuestion("metric-explained", ("where", "goods_rates", "limit", *_PERIOD), {"names": _ROI_METRICS}),
        whole=True,
    ),
}

CHANNELS: Final = {
    "coupons": Part(
        "Coupons by channel",
        "metrics",
        ("where", *_PERIOD),
        {"by": "channel", "names": _CHANNEL_METRICS},
        behind=PartQuestion("metric-explained", ("where", "limit", *_PERIOD), {"names": _CHANNEL_METRICS}),
        whole=True,
    ),
    "credit": Part("Orders credited to channels, by models", "attribution", ("goods_rates", *_PERIOD), behind=_ORDERS),
}

DETAILS: Final[Mapping[str, str]] = {
    "rfm": "name",
    "tiers": "name",
    "margin": "gross_minor",
    "budget": "per_day_minor liability_minor",
    "categories": "quantity line_discount_minor",
}
"""By name of the part: columns that tables show only with `--wide`."""


def one_row_a_slice(rows: list[Row]) -> list[Row]:
    """The rows of an answer about metrics, for people: without the columns `open` and `data_clock`, and with counts and
    amounts in one row if a slice has only one currency. Other answers are returned unchanged."""
    if not rows or "data_clock" not in rows[0]:
        return rows
    hidden = ("open", "data_clock")
    return [{name: value for name, value in row.items() if name not in hidden} for row in one_currency(rows)]


WITHOUT_BUDGET: Final = (
    "The total of what was spent includes {spent:money} of campaigns without a budget; what is left does not."
)

MONTHS_LATER: Final = "+1, +2, …: the share that came in the first, the second, … month after; with … it may still grow"


def by_month(rows: list[Row]) -> list[Row]:
    """Arrange an answer about cohorts as a triangle: one row per cohort, one column per later month, with the share of
    customers who ordered again in that month. Other answers are returned unchanged.

    The first month is left out, since all customers ordered in it. Empty cohorts and months after more than ten years
    are left out, too: otherwise, one order with a wrong date could make the table two thousand years wide.
    """
    if not rows or "months_later" not in rows[0]:
        return rows
    started = [row for row in rows if row["customers"] and row["months_later"] <= _TEN_YEARS]
    later = sorted({row["months_later"] for row in started} - {0})
    cohorts: dict[tuple[Any, ...], Row] = {}
    for row in started:
        head = {"cohort": f"{row['cohort']:%Y-%m}", "customers": row["customers"]}
        cohort = cohorts.setdefault(tuple(head.values()), head | {f"+{n}": "" for n in later})
        if row["months_later"]:
            cohort[f"+{row['months_later']}"] = _share_that_came(row)
    return list(cohorts.values())


_TEN_YEARS: Final = 120
"""Ten years, in months."""


def _share_that_came(row: Row) -> str:
    return ("" if row["retention"] is None else f"{row['retention']:.0%}") + ("…" if row["open"] else "")


def doubt_in_words(row: Row) -> Note:
    """A sentence about a doubt: how many cases there are, how reports count them, and the amount in question."""
    what, how = DOUBTS[row["doubt"]]
    values = {"n": row["cases"], "what": note(what, n=row["cases"]), "how": note(how)}
    if not row["amount_minor"]:
        return note("{n:count} {what}: {how}", **values)
    return note("{n:count} {what}: {how}; {worth:money}", **values, worth=(row["amount_minor"], row["currency"]))


def doubt_without_number(doubt: str) -> Note:
    """A sentence about a doubt without the number of cases, which the table shows in another column."""
    what, how = DOUBTS[doubt]
    return note("{what}: {how}", what=note(what, n=2), how=note(how))
