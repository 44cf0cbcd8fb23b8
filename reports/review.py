"""The review of a campaign (复盘): goal and result, funnel, trend, channels, customers, causal effects, cost, losses,
anomalies, and a comparison with earlier campaigns.

Each section is built by a function that asks questions through `CampaignAnswers` and returns a `Section`. If the data
for a section are missing, the section says so.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.words import Note, note, of_error
from coupon_ledger.reports.charts import Chart
from coupon_ledger.reports.experiment import COLUMNS as EXPERIMENT_COLUMNS
from coupon_ledger.reports.experiment import TITLES, columns_of, main_effects
from coupon_ledger.reports.labels import say, text_of
from coupon_ledger.reports.parts import ADDS_NOTHING, LINES, MOVES, WITHOUT_VALUE, doubt_without_number, one_row_a_slice
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    import polars as pl

    from coupon_ledger.questions.registry import Source


_RESULTS: Final = (
    "issued_coupons,claimed_coupons,net_uses,cohort_use_rate,coupon_orders,coupon_gmv_minor,coupon_net_sales_minor,"
    "discount_cost_minor,other_cost_minor,cost_minor,coupon_orders_without_goods_cost,coupon_margin_minor,simple_roi"
)

_TREND: Final = "issued_events,claimed_events,used_events,expired_events,discount_cost_minor"

_INDUSTRY: Final = "industry_"
"""A target for `industry_<metric>` is no goal but a figure of the industry, stored for comparison."""

_EARLIER: Final = 5


@dataclass
class Section:
    """One section of a review. `in_short`: sentences for the summary at the head of the review. `tables`: the rows of
    each table, by a key (see `TABLE_TITLES`). `columns`: by the same key, the columns that people see; all if the key
    is missing. `currency`: the currency of amounts in rows that name none. `heads`: other names under which people see
    a column, by column. `commands`: commands that show where the numbers come from. `refused`: why the section has no
    data."""

    title: str = ""
    in_short: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    charts: list[Chart] = field(default_factory=list)
    currency: str | None = None
    heads: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    refused: str | None = None


class CampaignAnswers:
    """Asks questions about one campaign. All answers are as of the same cut. `past`: the parameters that set this cut.
    `goods_rates`: the rates for the cost of goods, in the form that questions accept. `zone`: the time zone in which
    days begin; None for the default."""

    def __init__(
        self,
        source: Source,
        campaign: str,
        past: Mapping[str, Any],
        goods_rates: Mapping[str, int] | None,
        zone: str | None = None,
    ) -> None:
        self.campaign = campaign
        self._zone = {"zone": zone} if zone else {}
        self.goods: Mapping[str, Any] = {"goods_rates": goods_rates} if goods_rates else {}
        self._source = source
        self._past = past
        self._answers: dict[str, pl.DataFrame] = {}
        self.as_of: Row = {}
        [self.about] = self.rows("campaign", campaign=campaign)

    def frame(self, question: str, **parameters: Any) -> pl.DataFrame:
        """The answer to a question. If the same question has been asked before, this is the same answer."""
        import polars as pl

        key = json.dumps([question, plain(parameters)])
        if key not in self._answers:
            answer = self._source.ask(question, **parameters, **self._past)
            self.as_of = {"commits": answer.as_of.commits, "data_clock": answer.as_of.data_clock, **self._past}
            self._answers[key] = pl.concat(answer.frames)
        return self._answers[key]

    def rows(self, question: str, **parameters: Any) -> list[Row]:
        return self.frame(question, **parameters).to_dicts()

    def metrics(self, names: str, campaigns: list[str] | None = None, **more: Any) -> list[Row]:
        """The values of metrics: one row per slice and currency, with one column per metric. `names`: the metrics,
        separated by commas. `campaigns`: the campaigns to ask about; None for the campaign of the review."""
        where = {"campaign": [self.campaign] if campaigns is None else campaigns}
        return self.rows("metrics", names=names, where=where, **self.goods, **self._zone, **more)

    def command(self, line: str) -> str:
        """The text of a command that shows the same numbers, as of the same cut. `line`: the command without
        `coupon-ledger`, in which `{campaign}` stands for the campaign and `{rates}` for the options with the rates."""
        goods = self.goods.get("goods_rates", {})
        rates = "".join(
            f" --goods-rate {shlex.quote(f'{c}={bp / 100:g}' if c else f'{bp / 100:g}')}" for c, bp in goods.items()
        )
        options = {"at": "--at", "known_at": "--known-at", "positions": "--at-position"}
        past = "".join(f" {options[name]} {plain(value)}" for name, value in self._past.items())
        zoned = line.startswith(("metrics", "report", "attribution", "experiment", "expiries"))
        zone = f" --zone {shlex.quote(self._zone['zone'])}" if self._zone and zoned else ""
        return "coupon-ledger " + line.format(campaign=shlex.quote(self.campaign), rates=rates) + zone + past


TABLE_TITLES: Final[Mapping[str, str]] = TITLES | {
    "result": "Result",
    "goal": "Goal",
    "by day": "By day",
    "coupons by channel": "Coupons by channel",
    "segments (客户分层)": "Segments",
    "comparison": "Comparison",
    "discount (优惠)": "Discount",
    "budget and booked costs (预算与成本)": "Budget and booked costs",
    "discounts by funder (出资方)": "Discounts by funder",
    "coupons that are out (券负债)": "Coupons that are out",
    "points of loss (损失点)": "Points of loss",
    "expired unused, by cause (失效归因)": "Expired unused, by cause",
    "broken rules (违规)": "Broken rules",
    "doubts about the data, of all campaigns (数据提示)": "Doubts about the data, of all campaigns",
    "campaigns (历次活动)": "Campaigns",
    "industry (行业均值)": "Industry",
    "coupons (券)": "Coupons by step",
    "people (人)": "People by step",
    "what it earned, by model of attribution (归因)": "What it earned, by model of attribution",
    "how these counts join": "How these counts join",
    "response": "Response to the face value",
    "booked": "Booked costs",
}
"""Titles that people read, by table key. Keys are part of the JSON format."""


def _goal(ask: CampaignAnswers) -> Section:
    rows = ask.metrics(_RESULTS)
    section = Section(
        commands=[ask.command("metrics query coupon_net_sales_minor cost_minor --where campaign={campaign} --explain")]
    )
    section.tables["result"] = _by_metric(rows, _RESULTS)
    section.columns["result"] = ["metric", "value"]
    section.in_short = _result_in_short(rows)
    if any(row["coupon_orders_without_goods_cost"] for row in rows):
        section.warnings.append(
            say("some orders have no known cost of goods: {adds_nothing}", adds_nothing=note(ADDS_NOTHING))
        )
    if not any(row["other_cost_minor"] for row in rows):
        section.warnings.append(say("no cost was booked: cost is the discount alone, and ROI is too high for it"))
    booked = [row["metric"] for row in ask.rows("campaign-targets", campaign=ask.campaign)]
    targets = list(dict.fromkeys(name for name in booked if _known(name)))
    if targets:
        held = _against(ask.metrics(",".join(targets), compare="target"), ",".join(targets))
        section.tables["goal"] = held
        for name in targets:
            if name not in {row["metric"] for row in held}:
                section.warnings.append(
                    say(
                        "the target of {metric:label} is not held against a result: there is none, or it is in several"
                        " currencies and the target names none",
                        metric=name,
                    )
                )
    for name in dict.fromkeys(name for name in booked if not _known(name) and not name.startswith(_INDUSTRY)):
        section.warnings.append(
            say("a target is set of {name}, which is no metric; `metrics list` has their names", name=name)
        )
    if not targets:
        section.text.append(say("No target was set for this campaign."))
    return section


def _result_in_short(rows: list[Row]) -> list[str]:
    counts: Row = {}
    for row in rows:
        counts |= {name: value for name, value in row.items() if value is not None and not name.endswith("_minor")}
    used, issued = counts["net_uses"], counts["issued_coupons"]
    share = used / issued if issued else None
    in_use = "{used:count} of {issued:count} coupon{issued:s} issued {used:are} in use ({share:percent})."
    points = [say(in_use, used=used, issued=issued, share=share)]
    for row in rows:
        if row["cost_minor"] is not None and row["currency"] is not None:
            currency = row["currency"]
            roi = row["simple_roi"]
            points.append(
                say(
                    "{sales:money} of net sales with a coupon at a cost of {cost:money}; simple ROI (not"
                    " incremental) {roi}.",
                    sales=(row["coupon_net_sales_minor"], currency),
                    cost=(row["cost_minor"], currency),
                    roi=note("cannot be told") if roi is None else note("{roi:factor}", roi=roi),
                )
            )
    return points


def _funnel(ask: CampaignAnswers) -> Section:
    section = Section(
        commands=[
            ask.command("coupons --campaign {campaign}"),
            ask.command("report funnel --campaign {campaign} --explain behaviour"),
        ]
    )
    [campaign] = [row for row in ask.rows("campaigns") if row["campaign_id"] == ask.campaign] or [{}]
    steps = ("coupons", "issued", "claimed", "used", "in_use", "returned", "expired") if campaign else ()
    of = campaign.get("coupons")
    section.tables["coupons (券)"] = [
        {"step": n, "coupons": campaign[n], "share": campaign[n] / of if of else None} for n in steps
    ]
    section.tables["people (人)"] = ask.rows("behaviour", campaign=ask.campaign)
    section.text.append(say("In a step are users with such an event; they need not have been in the step before."))
    section.charts = [
        Chart("bars", say("How far coupons got"), list(steps), {"coupons": [campaign[n] for n in steps]}),
        Chart(
            "bars",
            say("How far people got"),
            [row["step"] for row in section.tables["people (人)"]],
            {"people": [row["users"] for row in section.tables["people (人)"]]},
        ),
    ]
    return section


def _trend(ask: CampaignAnswers) -> Section:
    section = Section(
        commands=[ask.command("metrics query used_events --where campaign={campaign} --grain day --explain")]
    )
    rows = one_row_a_slice(ask.metrics(_TREND, grain="day"))
    hidden = ("bucket", "starts_at")
    section.tables["by day"] = [
        {"day": row["bucket"]} | {n: v for n, v in row.items() if n not in hidden} for row in rows
    ]
    days = sorted({row["bucket"] for row in rows})
    counts = [name for name in _TREND.split(",") if "minor" not in name]
    lines = {name: dict.fromkeys(days, 0) for name in counts}
    costs: dict[str, dict[str, int]] = {}
    for row in rows:
        for name in counts:
            lines[name][row["bucket"]] += row[name] or 0
        if row["currency"] is not None:
            costs.setdefault(row["currency"], dict.fromkeys(days, 0))[row["bucket"]] = row["discount_cost_minor"] or 0
    drawn = {name: list(line.values()) for name, line in lines.items() if any(line.values())}
    section.charts = [Chart("lines", say("Events a day"), days, drawn)]
    for currency, line in costs.items():
        title = say("Coupon discount a day, {currency}", currency=currency)
        section.charts.append(
            Chart("lines", title, days, {"discount_cost_minor": list(line.values())}, currency=currency)
        )
    return section


def _channels(ask: CampaignAnswers) -> Section:
    section = Section(
        commands=[
            ask.command("metrics query net_uses --where campaign={campaign} --by channel --explain"),
            ask.command("attribution show --campaign {campaign} --roi{rates}"),
        ]
    )
    rows = ask.metrics("issued_events,claimed_events,net_uses,discount_cost_minor", by="channel")
    section.tables["coupons by channel"] = one_row_a_slice(rows)
    title = "what it earned, by model of attribution (归因)"
    credited = ask.rows("attribution-roi", campaign=ask.campaign, **ask.goods)
    renamed = {"roi": "attributed_roi", "orders": "credited_orders"}
    section.tables[title] = [{renamed.get(n, n): v for n, v in row.items()} for row in credited]
    section.columns[title] = (
        "model currency credited_orders sales_minor margin_minor cost_minor attributed_roi without_cost".split()
    )
    section.tables["how these counts join"] = [
        {
            "what": ("= " if row["total"] else "") + say(LINES[row["line"]]),
            "number": row["number"],
            "amount_minor": row["amount_minor"],
            "currency": row["currency"],
        }
        for row in ask.rows("finance-reconciliation", campaign=ask.campaign)
    ]
    section.text.append(
        say("Attribution shares orders out among the touches before them; some of them would have come anyway.")
    )
    for currency in dict.fromkeys(row["currency"] for row in credited):
        of_currency = [row for row in credited if row["currency"] == currency]
        sales = {"sales_minor": [row["sales_minor"] for row in of_currency]}
        title = say("Sales credited by model, {currency}", currency=currency)
        section.charts.append(Chart("bars", title, [row["model"] for row in of_currency], sales, currency=currency))
    if any(row["without_cost"] for row in credited):
        section.warnings.append(
            say("some orders have no known cost of goods: {adds_nothing}", adds_nothing=note(ADDS_NOTHING))
        )
    return section


def _customers(ask: CampaignAnswers) -> Section:
    import polars as pl

    from coupon_ledger.ledger.labels import codes

    section = Section(
        commands=[
            ask.command("coupons --campaign {campaign} --state used"),
            ask.command("report segments rfm{rates} --explain"),
        ]
    )
    theirs = ask.frame("campaign-users", campaign=ask.campaign)
    segments = ask.rows("campaign-segments", campaign=ask.campaign)
    rows: list[Row] = [
        {
            "segment": row["segment"],
            "name": codes()[row["segment"]].zh,
            "currency": row["currency"],
            "customers": row["customers"],
            "got": row["got"],
            "used_it": row["used"],
            "came_again": row["came_again"],
            "net_sales_minor": row["net_sales_minor"],
            "use_rate": row["used"] / row["got"] if row["got"] else None,
        }
        for row in segments
        if row["segment"] is not None
    ]
    section.tables["segments (客户分层)"] = rows
    section.heads = {"use_rate": "used_share"}  # here a share of people; `use_rate` is a share of coupons
    section.columns["segments (客户分层)"] = [name for name in rows[0] if name != "name"] if rows else []
    users = theirs.filter(pl.col("used") > 0).height
    unknown = sum(row["customers"] for row in segments if row["segment"] is None)
    section.text.append(
        say(
            "{n:count} user{n:s} got a coupon of it, {used:count} {used:have} one in use; net sales and coming"
            " again are those of who used it, over all that they ever bought.",
            n=theirs.height,
            used=users,
        )
    )
    if unknown:
        section.text.append(
            say("{n:count} of them never bought anything that stands, and are in no segment.", n=unknown)
        )
    used_it: dict[str, int] = {}
    for row in rows:
        name = row["segment"]
        used_it[name] = used_it.get(name, 0) + row["used_it"]
    title = say("People who used it, by segment")
    section.charts = [Chart("bars", title, list(used_it), {"used_it": list(used_it.values())})]
    return section


def _incrementality(ask: CampaignAnswers) -> Section:
    try:
        [row] = ask.rows("experiment", campaign=ask.campaign, **ask.goods)
        section = _experiment(row, ask)
    except LedgerError as error:
        why = say("No experiment to tell it from: {why}.", why=of_error(error))
        try:
            [row] = ask.rows("experiment-comparison", campaign=ask.campaign, **ask.goods)
        except LedgerError as other:
            section = Section(
                refused=say("{why} Nor can it be compared without arms: {other}.", why=why, other=of_error(other))
            )
            section.in_short = [say("What it caused cannot be told: nobody was held back by chance.")]
            return section
        section = _comparison_without_arms(row, why, ask)
    section.text.append(_discount_here(ask, row))
    section.currency = row["currency"]
    section.warnings += [text_of(Note.loads(warning["note"])) for warning in row["warnings"]]
    return section


def _experiment(row: Row, ask: CampaignAnswers) -> Section:
    conclusions = [text_of(Note.loads(sentence)) for sentence in row["conclusion_notes"]]
    section = Section(text=list(conclusions), in_short=list(conclusions))
    section.commands = [ask.command("experiment show {campaign}"), ask.command("experiment people {campaign}")]
    response = row.pop("response")
    for name, value in row.items():
        if name not in ("warnings", "conclusions", "conclusion_notes") and isinstance(value, list) and value:
            section.tables[name] = main_effects(value) if name == "effects" else value
    if response:
        section.tables["response"] = response[0]["points"]
    section.columns = {name: columns_of(name, row[name]) for name in EXPERIMENT_COLUMNS}
    by_method = {
        method: [e for e in row["effects"] if e["metric"] == row["effects"][0]["metric"] and e["method"] == method]
        for method in ("plain", "cuped")
    }
    for method, effects in by_method.items():
        if effects:
            title = say(
                "{metric:label} per person more than the control (95%), {method:word}",
                metric=effects[0]["metric"],
                method=method,
            )
            spans = {name: [e[name] for e in effects] for name in ("effect", "low", "high")}
            section.charts.append(Chart("spans", title, [e["arm"] for e in effects], spans, currency=row["currency"]))
    return section


def _comparison_without_arms(row: Row, why: str, ask: CampaignAnswers) -> Section:
    conclusion = text_of(Note.loads(row["conclusion_note"]))
    section = Section(text=[why, conclusion], in_short=[conclusion])
    section.commands = [ask.command("experiment compare {campaign}")]
    hidden = ("conclusion", "conclusion_note", "evidence")
    section.tables["comparison"] = [{n: v for n, v in row.items() if not isinstance(v, list) and n not in hidden}]
    return section


def _discount_here(ask: CampaignAnswers, row: Row) -> str:
    """A sentence that explains why the discount shown beside an effect is less than the whole discount of the
    campaign."""
    here = sum(arm["discount_minor"] for arm in row["arms"]) if "arms" in row else row["discount_minor"]
    discounts = {part["currency"]: part["discount_cost_minor"] for part in ask.metrics("discount_cost_minor")}
    part, whole = ((n, row["currency"]) for n in (here, discounts.get(row["currency"]) or 0))
    here_template = (
        "The discount is here that of {whose} on orders of the window that stand: {part:money} of the {whole:money}"
        " that coupons of the campaign in use took off in all."
    )
    whose = note("the people in the arms") if "arms" in row else note("those compared")
    return say(here_template, whose=whose, part=part, whole=whole)


def _cost(ask: CampaignAnswers) -> Section:
    section = Section(commands=[ask.command("report finance split --campaign {campaign} --explain")])
    section.tables["discount (优惠)"] = [
        {name: row[name] for name in ("currency", "discount_minor", "without_sale_minor")}
        for row in ask.rows("attribution-roi", campaign=ask.campaign, models="redeemed")
    ]
    section.text.append(
        say(
            "The discount is of the coupons in use, whatever became of their orders (without a sale: on those that were"
            " cancelled, refunded in full or never paid); every section counts it so, but what it caused, which says"
            " how. The coupons that are out are counted by their face value."
        )
    )
    section.tables["budget and booked costs (预算与成本)"] = ask.rows("finance-budgets", campaign=ask.campaign)
    funders = ask.rows("finance-split", by="funder", campaign=ask.campaign)
    section.tables["discounts by funder (出资方)"] = funders
    statement = ask.rows("finance-statement", campaign=ask.campaign)
    section.tables["coupons that are out (券负债)"] = [
        {
            "step": move,
            "coupons": row[f"{move}_coupons"],
            "face_value_minor": row[f"{move}_minor"],
            "currency": row["currency"],
        }
        for row in statement
        for move in MOVES
    ]
    if unknown := sum(row["closing_without_value"] for row in statement):
        section.text.append(say(WITHOUT_VALUE, n=unknown))
    for currency in dict.fromkeys(row["currency"] for row in funders):
        shares = [row for row in funders if row["currency"] == currency]
        title = say("Discounts by who bears them, {currency}", currency=currency)
        names = [row["funder"] or say("nobody named") for row in shares]
        section.charts.append(
            Chart(
                "bars", title, names, {"discount_minor": [row["discount_minor"] for row in shares]}, currency=currency
            )
        )
    return section


def _losses(ask: CampaignAnswers) -> Section:
    section = Section(commands=[ask.command("report finance losses --campaign {campaign} --explain")])
    losses = ask.rows("finance-losses", campaign=ask.campaign)
    section.tables["points of loss (损失点)"] = losses
    section.tables["expired unused, by cause (失效归因)"] = ask.rows("expiries", by="reason", campaign=ask.campaign)
    section.text.append(say("One event can stand in several points: do not add the points up."))
    for row in sorted(losses, key=lambda row: -row["lost_minor"])[:1]:
        if row["lost_minor"]:
            section.in_short.append(
                say(
                    "The largest point of loss is {point:word}: {lost:money} in {n:count} case{n:s}.",
                    point=row["point"],
                    lost=(row["lost_minor"], row["currency"]),
                    n=row["cases"],
                )
            )
    return section


def _anomalies(ask: CampaignAnswers) -> Section:
    section = Section(commands=[ask.command("violations --output csv")])
    broken = ask.rows("campaign-violations", campaign=ask.campaign)
    section.tables["broken rules (违规)"] = broken
    if broken:
        cases = sum(row["cases"] for row in broken)
        rules = sorted({row["violation"] for row in broken})
        section.in_short.append(say("{n:count} fault{n:s}: {rules:word}.", n=cases, rules=rules))
        section.text.append(
            say("Discount: what the coupons concerned take off now. One coupon can stand in several rows.")
        )
    else:
        section.text.append(say("No rule was broken."))
    doubts = ask.rows("finance-doubts")
    section.tables["doubts about the data, of all campaigns (数据提示)"] = [
        {
            "what": text_of(doubt_without_number(row["doubt"])),
            "cases": row["cases"],
            "currency": row["currency"],
            "amount_minor": row["amount_minor"],
        }
        for row in doubts
    ]
    return section


def _comparison(ask: CampaignAnswers) -> Section:
    """The section that compares the campaign with earlier campaigns, and with stored figures of the industry."""
    section = Section(commands=[ask.command("report roi{rates}")])
    rows = [row for row in ask.rows("campaigns") if row["campaign_id"] is not None]
    begun = {row["campaign_id"]: row["begun_at"] for row in rows if row["begun_at"] is not None}
    begun_at = begun.get(ask.campaign)
    earlier = sorted((at, name) for name, at in begun.items() if begun_at is not None and at < begun_at)
    near = [*(name for _, name in earlier[-_EARLIER:]), ask.campaign]
    names = "net_uses,cohort_use_rate,coupon_orders,discount_cost_minor,simple_roi"
    results = one_row_a_slice(ask.metrics(names, near, by="campaign"))
    named = {row["campaign_id"]: row["name"] for row in rows}
    results.sort(key=lambda row: near.index(row["campaign"]))
    section.tables["campaigns (历次活动)"] = [
        {"campaign": row["campaign"], "name": named.get(row["campaign"])} | row for row in results
    ]
    rates = {row["campaign"]: row["cohort_use_rate"] for row in results if row["cohort_use_rate"] is not None}
    section.charts = [
        Chart(
            "bars",
            say("Part of the coupons owned that are in use"),
            list(rates),
            {"cohort_use_rate": list(rates.values())},
        )
    ]
    if len(near) == 1:
        section.text.append(say("No campaign began before it."))
    booked = [row for row in ask.rows("campaign-targets", campaign=ask.campaign) if row["metric"].startswith(_INDUSTRY)]
    of_known = {row["metric"].removeprefix(_INDUSTRY): row for row in booked}
    of_known = {name: row for name, row in of_known.items() if _known(name)}
    if of_known:
        comparisons = [row for name, booked in of_known.items() for row in _beside(ask, name, booked)]
        section.tables["industry (行业均值)"] = comparisons
    else:
        section.text.append(say("No figure of the industry was booked."))
    return section


SECTIONS: Final[Mapping[str, tuple[str, Callable[[CampaignAnswers], Section]]]] = {
    "goal": ("Goal and result", _goal),
    "funnel": ("How far coupons and people got", _funnel),
    "trend": ("Day by day", _trend),
    "channels": ("Channels", _channels),
    "customers": ("Who used it", _customers),
    "incrementality": ("What it caused", _incrementality),
    "cost": ("What it cost, and who bears it", _cost),
    "losses": ("Money lost", _losses),
    "anomalies": ("What looked odd", _anomalies),
    "comparison": ("Earlier campaigns, and the industry", _comparison),
}


def _known(name: str) -> bool:
    """Whether there is a metric with this name that can be computed for a whole campaign."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    metric = METRICS.get(name)
    return metric is not None and "campaign" in metric.dimensions and "minutes" not in metric.formula


def _by_metric(rows: list[Row], names: str) -> list[Row]:
    """One row (`metric`, `currency`, `value`, `unit`) per metric and currency. Without metrics that have no value.
    `names`: the metrics, separated by commas."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    return [
        {
            "metric": n,
            "currency": row.get("currency"),
            "value": row[n],
            "unit": METRICS[n].unit,
        }
        for n in names.split(",")
        for row in rows
        if row.get(n) is not None
    ]


def _against(rows: list[Row], names: str) -> list[Row]:
    """One row per metric and currency that has a target: the target (`goal`), the `result`, and the share of the target
    that was `reached`. `names`: the metrics, separated by commas."""
    return [
        {
            "metric": name,
            "currency": row.get("currency"),
            "goal": row[f"{name}_target"],
            "result": row[name],
            "reached": row[f"{name}_reached"],
        }
        for name in names.split(",")
        for row in rows
        if row.get(f"{name}_target") is not None
    ]


def _beside(ask: CampaignAnswers, name: str, booked: Row) -> list[Row]:
    """Compare the metric `name` with the figure of the industry, in one row per currency. `booked`: the row of the
    target as which the figure is stored. The figure of a ratio is in basis points."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    industry = booked["target"] / 10_000 if METRICS[name].unit == "ratio" else booked["target"]
    rows = [row for row in ask.metrics(name) if row[name] is not None]
    rows = [row for row in rows if booked["currency"] in (None, row.get("currency"))]
    return [
        {
            "metric": name,
            "currency": row.get("currency"),
            "industry": industry,
            "campaign": row[name],
            "times": round(row[name] / industry, 4) if industry else None,
        }
        for row in rows
    ]


def review_of(ask: CampaignAnswers, sections: list[str]) -> dict[str, Section]:
    """Build these sections. Returns them by name. If the data for a section are missing, it has only the reason
    (`refused`)."""
    review = {}
    for name in sections:
        title, build = SECTIONS[name]
        try:
            review[name] = build(ask)
        except LedgerError as error:
            review[name] = Section(refused=text_of(of_error(error)))
        review[name].title = say(title)
    return review


def as_json(ask: CampaignAnswers, sections: Mapping[str, Section]) -> str:
    """The review as JSON for machines, with amounts in minor units and instants in UTC."""
    names = ("title", "in_short", "text", "warnings", "tables", "currency", "commands", "refused")
    contents = {name: {part: getattr(section, part) for part in names} for name, section in sections.items()}
    head = {"campaign": ask.campaign, "name": ask.about["name"], "as_of": ask.as_of}
    return json.dumps(plain({**head, "sections": contents}), ensure_ascii=False, indent=2)
