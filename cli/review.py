"""`review`: one report of a campaign (复盘), from the questions that the other commands ask: goal and result, funnel,
trend, channels, customers, what it caused, cost, losses, what looked odd, and earlier campaigns beside it.

A section is a function of an asker, below; what the data do not carry is said in its place. A layout (which sections,
in which order, by which rates) can be kept by a name, in `coupon.operations`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from analysis import need
from cli.options import LOG, goods_rate_option, operator_options, past_options, settings_options, signed
from cli.output import Row, cell
from cli.report import one_row_a_slice
from ledger.errors import LedgerError, UnusableFile
from ledger.plain import plain
from ledger.settings import Settings

if TYPE_CHECKING:
    from projections.queries import Source

DEFINED: Final = "review_template_defined"
_RESULTS: Final = (
    "issued_coupons,claimed_coupons,net_uses,cohort_use_rate,coupon_orders,coupon_gmv_minor,coupon_net_sales_minor,"
    "discount_cost_minor,cost_minor,coupon_margin_minor,simple_roi"
)
_TREND: Final = "claimed_events,used_events,expired_events,discount_cost_minor"
_INDUSTRY: Final = "industry_"
"""Before the name of a metric, a target of that metric is a figure of the industry, booked to compare with."""
_EARLIER: Final = 5


@dataclass
class Section:
    """`tables`: by title. `charts`: by title, the x values and the lines over them."""

    title: str = ""
    text: list[str] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    charts: dict[str, tuple[list[Any], dict[str, list[float]]]] = field(default_factory=dict)
    refused: str | None = None


class Asker:
    """Questions about one campaign, as of the same instant. `goods`: the rates of the cost of goods, as questions take
    them."""

    def __init__(self, source: Source, campaign: str, past: Mapping[str, Any], goods_rates: str | None) -> None:
        self.campaign = campaign
        self.goods = {"goods_rates": goods_rates} if goods_rates else {}
        self._source = source
        self._past = past
        self.as_of: Row = {}

    def rows(self, question: str, **parameters: Any) -> list[Row]:
        answer = self._source.ask(question, **parameters, **self._past)
        self.as_of = {"commits": answer.as_of.commits, "data_clock": answer.as_of.data_clock}
        return [row for frame in answer.frames for row in frame.iter_rows(named=True)]

    def metrics(self, names: str, campaigns: list[str] | None = None, **more: Any) -> list[Row]:
        """A row per slice and currency, a column per metric; of the campaign, where no others are named."""
        where = json.dumps({"campaign": [self.campaign] if campaigns is None else campaigns})
        return self.rows("metrics", names=names, where=where, **self.goods, **more)


# --- sections


def _goal(ask: Asker) -> Section:
    found = Section()
    found.tables["result"] = _by_metric(ask.metrics(_RESULTS), _RESULTS)
    targets = [row for row in ask.rows("campaign-targets", campaign=ask.campaign) if _known(row["metric"])]
    if targets:
        names = ",".join(dict.fromkeys(row["metric"] for row in targets))
        found.tables["goal"] = _against(ask.metrics(names, compare="target"), names)
    else:
        found.text.append("No target was set (未设目标): `target_set` events have results held against them.")
    return found


def _funnel(ask: Asker) -> Section:
    found = Section()
    [campaign] = [row for row in ask.rows("campaigns") if row["campaign_id"] == ask.campaign] or [{}]
    steps = ("coupons", "issued", "claimed", "in_use", "expired", "returned")
    found.tables["coupons"] = [{"step": name, "coupons": campaign[name]} for name in steps if campaign]
    found.tables["people"] = ask.rows("behaviour", campaign=ask.campaign)
    found.charts["coupons"] = (list(steps), {"coupons": [float(campaign[n]) for n in steps]}) if campaign else ([], {})
    return found


def _trend(ask: Asker) -> Section:
    found = Section()
    rows = one_row_a_slice(ask.metrics(_TREND, grain="day"))
    found.tables["by day"] = [{"day" if name == "bucket" else name: v for name, v in row.items()} for row in rows]
    days = sorted({row["bucket"] for row in rows})
    counts = {name: dict.fromkeys(days, 0.0) for name in _TREND.split(",") if "minor" not in name}
    for name, line in counts.items():
        for row in rows:
            line[row["bucket"]] += row[name] or 0
    found.charts["events a day"] = (days, {name: list(line.values()) for name, line in counts.items()})
    return found


def _channels(ask: Asker) -> Section:
    found = Section()
    rows = ask.metrics("claimed_events,net_uses,discount_cost_minor", by="channel")
    found.tables["coupons by channel"] = one_row_a_slice(rows)
    credited = ask.rows("attribution-roi", campaign=ask.campaign, **ask.goods)
    found.tables["what it earned, by model of attribution (归因)"] = credited
    found.text.append(
        "Attribution shares orders out among the touches before them; some of them would have come anyway (非增量)."
    )
    return found


def _customers(ask: Asker) -> Section:
    found = Section()
    everyone = ask.rows("customers", campaign=ask.campaign)
    by: dict[tuple[str, str | None], Row] = {}
    for row in everyone:
        of = {"segment": row["segment"], "currency": row["currency"]}
        nobody = {"customers": 0, "used_it": 0, "net_sales_minor": 0}
        part = by.setdefault((row["segment"], row["currency"]), {**of, **nobody})
        part["customers"] += 1
        part["used_it"] += row["used_it"]
        part["net_sales_minor"] += row["net_sales_minor"] * row["used_it"]
    for part in by.values():
        part["share"] = round(part["used_it"] / part["customers"], 4)
    found.tables["segments (客户分层)"] = sorted(by.values(), key=lambda part: -part["used_it"])
    users = len({row["user_id"] for row in everyone if row["used_it"]})
    found.text.append(f"{users:,} customers have a coupon of it in use; net_sales_minor: all that they ever bought.")
    return found


def _incrementality(ask: Asker) -> Section:
    found = Section()
    try:
        [row] = ask.rows("experiment", campaign=ask.campaign, **ask.goods)
    except LedgerError as error:
        found.text.append(f"No experiment to tell it from (无对照实验): {error}")
        [row] = ask.rows("experiment-comparison", campaign=ask.campaign, **ask.goods)
        found.text.append("Weaker evidence (证据较弱): nobody was assigned by chance.")
    found.text += row["conclusions"] if "conclusions" in row else [row["conclusion"]]
    found.text.append(_discount_here(ask, row))
    for name, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found.tables[name] = value
    return found


def _discount_here(ask: Asker, row: Row) -> str:
    """Why the discount beside an effect is less than that of the campaign."""
    here = sum(arm["discount_minor"] for arm in row["arms"]) if "arms" in row else row["discount_minor"]
    told = {part["currency"]: part["discount_cost_minor"] for part in ask.metrics("discount_cost_minor")}
    whose = "the people in the arms" if "arms" in row else "those compared"
    return (
        f"优惠口径: discount_minor is here that of {whose} on orders of the window that stand, {here:,.0f} of the"
        f" {told.get(row['currency']) or 0:,} {row['currency'] or ''} that coupons of the campaign in use took off"
        " in all."
    )


def _cost(ask: Asker) -> Section:
    found = Section()
    found.tables["discount (优惠)"] = [
        {name: row[name] for name in ("currency", "discount_minor", "without_sale_minor")}
        for row in ask.rows("attribution-roi", campaign=ask.campaign, models="redeemed")
    ]
    found.tables["budget and booked costs"] = ask.rows("finance-budgets", campaign=ask.campaign)
    found.tables["discounts by funder (出资方)"] = ask.rows("finance-split", by="funder", campaign=ask.campaign)
    found.text.append(
        "discount_minor: of the coupons in use, whatever became of their orders (without_sale_minor: on those that were"
        " cancelled, refunded in full or never paid); every section counts it so, but what it caused (增量), which says"
        " how. The coupons that are out are counted by their face value (面值)."
    )
    found.tables["coupons that are out (券负债)"] = ask.rows("finance-statement", campaign=ask.campaign)
    return found


def _losses(ask: Asker) -> Section:
    found = Section()
    found.tables["points of loss"] = ask.rows("finance-losses", campaign=ask.campaign)
    found.tables["expired unused, by cause (失效归因)"] = ask.rows("expiries", by="reason", campaign=ask.campaign)
    return found


def _anomalies(ask: Asker) -> Section:
    found = Section()
    mine = {row["coupon_id"] for row in ask.rows("coupons", campaign=ask.campaign)}
    counts: dict[str, int] = {}
    for row in ask.rows("violations"):
        if row["key"] in mine or row["key"] == ask.campaign or row.get("counterpart") in mine:
            counts[row["violation"]] = counts.get(row["violation"], 0) + (not row.get("superseded"))
    broken = sorted(counts.items(), key=lambda one: -one[1])
    found.tables["broken rules"] = [{"violation": name, "cases": cases} for name, cases in broken if cases]
    if not found.tables["broken rules"]:
        found.text.append("No rule was broken.")
    found.tables["what makes figures doubtful, of all campaigns (数据提示)"] = ask.rows("finance-doubts")
    return found


def _comparison(ask: Asker) -> Section:
    """Beside the campaigns that began before it, and beside what was booked for the industry."""
    found = Section()
    rows = [row for row in ask.rows("campaigns") if row["campaign_id"] is not None]
    begun = {row["campaign_id"]: row["begun_at"] for row in rows if row["begun_at"] is not None}
    mine = begun.get(ask.campaign)
    earlier = sorted((at, name) for name, at in begun.items() if mine is not None and at < mine)
    near = [*(name for _, name in earlier[-_EARLIER:]), ask.campaign]
    names = "net_uses,cohort_use_rate,coupon_orders,discount_cost_minor,simple_roi"
    told = ask.metrics(names, near, by="campaign")
    found.tables["campaigns"] = one_row_a_slice(told)
    booked = [row for row in ask.rows("campaign-targets", campaign=ask.campaign) if row["metric"].startswith(_INDUSTRY)]
    of_known = {row["metric"].removeprefix(_INDUSTRY): row for row in booked}
    of_known = {name: row for name, row in of_known.items() if _known(name)}
    if of_known:
        told = [row for name, booked in of_known.items() for row in _beside(ask, name, booked)]
        found.tables["industry (行业均值)"] = told
    else:
        found.text.append("No figure of the industry was booked (未登记行业均值): `target_set` of a metric industry_….")
    return found


SECTIONS: Final[Mapping[str, tuple[str, Callable[[Asker], Section]]]] = {
    "goal": ("目标与结果 · goal and result", _goal),
    "funnel": ("漏斗 · how far coupons and people got", _funnel),
    "trend": ("趋势 · day by day", _trend),
    "channels": ("渠道 · channels", _channels),
    "customers": ("客户 · who used it", _customers),
    "incrementality": ("增量 · what it caused", _incrementality),
    "cost": ("成本 · what it cost, and who bears it", _cost),
    "losses": ("损失 · money lost", _losses),
    "anomalies": ("异常 · what looked odd", _anomalies),
    "comparison": ("对比 · earlier campaigns, and the industry", _comparison),
}


# --- metrics in tables


def _known(name: str) -> bool:
    """It is a metric that can be asked of a campaign as a whole."""
    from projections.metrics.definitions import METRICS

    metric = METRICS.get(name)
    return metric is not None and "campaign" in metric.dimensions and "minutes" not in metric.formula


def _by_metric(rows: list[Row], names: str) -> list[Row]:
    """A row per metric and currency that has a value."""
    from projections.metrics.definitions import METRICS

    return [
        {
            "metric": n,
            "名称": METRICS[n].chinese,
            "currency": row.get("currency"),
            "value": row[n],
            "unit": METRICS[n].unit,
        }
        for n in names.split(",")
        for row in rows
        if row.get(n) is not None
    ]


def _against(rows: list[Row], names: str) -> list[Row]:
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


def _beside(ask: Asker, name: str, booked: Row) -> list[Row]:
    """A figure of the industry is set as a target is: of a ratio in basis points. A row per currency."""
    from projections.metrics.definitions import METRICS

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


# --- the review


def review_of(ask: Asker, sections: list[str]) -> dict[str, Section]:
    """Each section; what the data do not carry is refused in its place."""
    found = {}
    for name in sections:
        title, section = SECTIONS[name]
        try:
            found[name] = section(ask)
        except LedgerError as error:
            found[name] = Section(refused=str(error))
        found[name].title = title
    return found


def as_json(campaign: str, ask: Asker, sections: Mapping[str, Section]) -> str:
    told = {
        name: {"title": s.title, "text": s.text, "tables": s.tables, "refused": s.refused}
        for name, s in sections.items()
    }
    return json.dumps(plain({"campaign": campaign, "as_of": ask.as_of, "sections": told}), ensure_ascii=False, indent=2)


def as_markdown(campaign: str, ask: Asker, sections: Mapping[str, Section], charts: Callable[[Any], str]) -> str:
    """`charts`: what stands in the place of a chart."""
    lines = [f"# 复盘 · review of campaign {_safe(campaign)}", ""]
    clock = ask.as_of.get("data_clock")
    state = f"As of commit {ask.as_of.get('commits')}, data's clock {cell(clock)}."
    lines += [f"{state} Amounts are in minor units (分).", ""]
    for section in sections.values():
        lines += [f"## {section.title}", ""]
        if section.refused:
            lines += [f"Refused (数据不足): {_safe(section.refused)}", ""]
        for text in section.text:
            lines += [_safe(text), ""]
        for title, (x, series) in section.charts.items():
            if x and series:
                lines += [charts((title, x, series)), ""]
        for title, rows in section.tables.items():
            lines += [f"**{title}**", "", *_table(rows), ""]
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["nothing found"]
    names = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    numeric = {n for n in names if all(isinstance(row.get(n), int | float | None) for row in rows)}
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join("---:" if n in numeric else "---" for n in names) + "|"]
    return lines + ["| " + " | ".join(_safe(_number(row.get(name))) for name in names) + " |" for row in rows]


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return cell(value)
    return f"{value:,}" if isinstance(value, int) else cell(value)


def _safe(text: str) -> str:
    """Somebody's data must not become markup."""
    for sign in ("\\", "|", "<", ">", "`", "*", "_", "[", "]"):
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return text.replace("\n", " ")


def as_html(campaign: str, ask: Asker, sections: Mapping[str, Section]) -> str:
    """A page of its own: charts are drawings in it, nothing is loaded from anywhere."""
    need("a page", "markdown_it", "reports")
    need("a page", "matplotlib", "reports")
    from markdown_it import MarkdownIt

    drawn: list[str] = []

    def place(chart: Any) -> str:
        drawn.append(_drawing(*chart))
        return f"CHART-{len(drawn) - 1}-HERE"

    body = MarkdownIt("commonmark").enable("table").render(as_markdown(campaign, ask, sections, place))
    for n, drawing in enumerate(drawn):
        body = body.replace(f"<p>CHART-{n}-HERE</p>", f"<figure>{drawing}</figure>")
    return _PAGE.replace("TITLE", f"Review {_safe(campaign)}").replace("BODY", body)


_PAGE: Final = """<!doctype html>
<html lang="zh"><head><meta charset="utf-8"><title>TITLE</title><style>
body { font: 15px/1.6 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; max-width: 72em;
       margin: 2em auto; padding: 0 1em; color: #1b1f24; }
h1, h2 { line-height: 1.25; } h2 { border-top: 1px solid #d8dee4; padding-top: 1em; }
table { border-collapse: collapse; margin: .5em 0 1.5em; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #e6e9ec; padding: .25em .75em; white-space: nowrap; } th { background: #f6f8fa; }
figure { margin: 1em 0; } figure svg { max-width: 100%; height: auto; }
</style></head><body>
BODY
</body></html>
"""


def _drawing(title: str, x: list[Any], series: Mapping[str, list[float]]) -> str:
    """An SVG: bars for one series over few names, else lines."""
    import io

    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "review"}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.subplots()
        names = [cell(value)[:10] for value in x]
        if len(series) == 1 and len(x) <= 12:
            axes.bar(names, next(iter(series.values())), color="#3b7dd8")
        else:
            for name, values in series.items():
                axes.plot(names, values, label=name, linewidth=1.8)
            axes.legend(frameon=False)
            axes.set_xticks(range(0, len(names), max(1, len(names) // 10)))
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


@click.command()
@click.argument("campaign", required=False)
@click.option(
    "--section", "sections", multiple=True, type=click.Choice(list(SECTIONS)), help="Only these, in this order."
)
@click.option("--template", help="By a layout that was kept under this name.")
@click.option("--save-template", metavar="NAME", help="Keep this layout under a name, with --why.")
@click.option("--list-templates", is_flag=True, help="List the layouts that were kept.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "html", "json"]),
    help="[default: by the name of --to, else markdown]",
)
@click.option("--to", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@goods_rate_option
@operator_options
@past_options
@settings_options(*LOG, "database")
def review(
    campaign: str | None,
    sections: tuple[str, ...],
    template: str | None,
    save_template: str | None,
    list_templates: bool,
    form: str | None,
    file: Path | None,
    goods_rates: str | None,
    why: str | None,
    operator: str | None,
    settings: Settings,
    **past: Any,
) -> None:
    """Review CAMPAIGN (复盘): one report of goal and result, funnel, trend, channels, customers, what it caused, cost,
    losses, what looked odd, and earlier campaigns beside it. As Markdown, as a page with charts, or as JSON.

    What the data do not carry is said in its place. A layout can be kept by a name and used again.

    \b
    coupon-ledger review 18
    coupon-ledger review 18 --goods-rate 75 --to review.html
    coupon-ledger review 18 --section goal --section cost --save-template short --why "weekly"
    coupon-ledger review 19 --template short --known-at 2026-11-12 --format json
    """
    from api.client import asking

    if list_templates:
        from cli.output import print_rows

        print_rows(list(_templates(settings).values()), "table")
        return
    if campaign is None:
        raise click.UsageError("CAMPAIGN is missing; `coupon-ledger campaigns` lists them")
    layout: Row = {"sections": list(sections) or list(SECTIONS), "goods_rates": goods_rates}
    if template is not None:
        kept = _templates(settings)
        if template not in kept:
            raise UnknownTemplate(f"template {template}: not known; there are {', '.join(kept) or 'none'}")
        layout = {
            name: kept[template][name] if not layout[name] or (not sections and name == "sections") else layout[name]
            for name in layout
        }
    if save_template is not None:
        _keep(save_template, layout, signed(why, operator), settings)
    form = form or {".html": "html", ".htm": "html", ".json": "json"}.get(file.suffix if file else "", "markdown")
    with asking(settings.database) as source:
        ask = Asker(source, campaign, {n: v for n, v in past.items() if v is not None}, layout["goods_rates"])
        ask.rows("campaign", campaign=campaign)
        found = review_of(ask, layout["sections"])
    text = {
        "json": lambda: as_json(campaign, ask, found),
        "html": lambda: as_html(campaign, ask, found),
        "markdown": lambda: as_markdown(campaign, ask, found, lambda chart: f"*{chart[0]}: drawn in the HTML form*"),
    }[form]()
    if file is None:
        click.echo(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnusableFile(f"file {file}: cannot be written ({error.strerror}); choose another place") from error
    click.echo(f"review of {campaign} written to {file}")


class UnknownTemplate(LedgerError):
    """No layout of that name was kept."""


def _keep(name: str, layout: Row, by: tuple[str, str], settings: Settings) -> None:
    from ledger import operations
    from ledger.log import open_log

    who, because = by
    with closing(open_log(settings.log)) as log:
        operations.append(log, DEFINED, why=because, operator=who, subject=name, details=layout)


def _templates(settings: Settings) -> dict[str, Row]:
    """By name, the latest of each."""
    from ledger.operations import told_of

    return {
        str(done.subject): {
            "name": done.subject,
            "sections": _known_sections((done.details or {}).get("sections")),
            "goods_rates": (done.details or {}).get("goods_rates"),
            "operator": done.operator,
            "reason": done.reason,
        }
        for done in told_of(settings.log, DEFINED)
    }


def _known_sections(told: object) -> list[str]:
    """Those that there are, in the order in which they were kept."""
    return [name for name in told if name in SECTIONS] if isinstance(told, list) else []
