"""`attribution`: show how much credit each channel, campaign or kind of touch gets for orders, according to several
models; define such models and list them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.appending import appending
from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.options import (
    LOG,
    goods_rate_option,
    instant_option,
    operator_options,
    output_option,
    past_options,
    settings_options,
    signed,
    zone_option,
)
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.questions.attribution.parameters import Credits
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.parts import ADDS_NOTHING
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coupon_ledger.questions.attribution.models import Model

_BY: Final = ("channel", "campaign", "kind")
_NOTES: Final = {
    "without_touch": "{n:count} order{n:s} {n:were} led to by no touch within 90 days: (none) in every model; a shorter"
    " look-back has more of them",
    "cut_off": "{n:count} order{n:s} {n:have} more touches than are kept of a path: only the latest are credited",
    "without_sales": "{n:count} order{n:s} brought no sales (nothing was paid)",
    "without_cost": "{n:count} order{n:s} {n:have} no known cost of goods: {adds_nothing}",
    "cost_by_rate": "{n:count} order{n:s} {n:have} a cost of goods by --goods-rate",
    "unknown_coupon": "{n:count} order{n:s} with coupons of which none is known to be used there: (unknown coupon)",
    "refunded_more_than_paid": "{n:count} order{n:s} {n:were} refunded more than was paid: not credited",
}


@click.group()
def attribution() -> None:
    """Show which channels and campaigns earned the orders (渠道归因), by one or several models.

    The credit for an order goes to the person's touches before it (issue, claim, view, click, …). A model decides how
    the credit is divided among them. Attribution does not say whether the orders would have been placed anyway.
    docs/attribution.md explains each number.

    \b
    coupon-ledger attribution show
    """


def _model_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--model",
        "names",
        multiple=True,
        metavar="NAME",
        help="Use this model (repeatable). [default: every built-in one]",
    )(command)


def _by_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--by", type=click.Choice(_BY), default="channel", show_default=True, help=about(Credits, "by")
    )(command)


def _window_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        instant_option("--until", about(Credits, "until")),
        instant_option("--since", about(Credits, "since")),
        click.option("--campaign", help=about(Credits, "campaign")),
    ):
        command = option(command)
    return command


@attribution.command()
@_model_option
@_by_option
@_window_options
@click.option("--explain", "order", metavar="ORDER", help="List the touches of this order, and the credit of each.")
@click.option(
    "--roi", is_flag=True, help="Show the cost of the --campaign, and what it earned according to each model."
)
@goods_rate_option
@zone_option()
@past_options
@settings_options(*LOG, "database")
@output_option
def show(
    names: tuple[str, ...],
    by: str,
    campaign: str | None,
    order: str | None,
    roi: bool,
    goods_rates: dict[str, int] | None,
    settings: Settings,
    output: str,
    **filters: Any,
) -> None:
    """Show the credit of each channel, campaign or kind of touch.

    Amounts in different currencies are never added up. The machine formats show amounts in minor units. The row
    (none) counts the orders that no touch led to.

    \b
    coupon-ledger attribution show
    coupon-ledger attribution show --by campaign --model last --model markov
    coupon-ledger attribution show --campaign 8 --roi --goods-rate 75 --since 2026-11-01 --until 2026-12-01
    coupon-ledger attribution show --known-at 2026-11-12
    coupon-ledger attribution show --explain order-1001
    """
    models = _models_named(settings, names)
    window = {name: filters.pop(name) for name in ("since", "until")} | {"goods_rates": goods_rates}
    if order is not None:
        _explain(settings, output, order, models, filters)
        return
    if roi:
        if campaign is None:
            raise click.UsageError("--roi is of one campaign; name it with --campaign")
        with answered(
            settings, output, "attribution-roi", campaign=campaign, models=models, **window, **filters
        ) as answer:
            print_rows(rows_of(answer), output)
        if output == "table":
            _say_which_model()
            _say_notes(settings, window | filters)
        return
    with answered(
        settings, output, "attribution", models=models, by=by, campaign=campaign, **window, **filters
    ) as answer:
        print_rows(rows_of(answer), output, _shown(by) if output == "table" else None)
    if output == "table":
        _say_which_model()
        _say_notes(settings, window | filters)


def _say_which_model() -> None:
    echo_wrapped(
        say(
            "`attribution models list` says which model answers which question. Orders are shares of orders: every"
            " model credits each order once. No model is incremental: `experiment show` shows what was caused."
        ),
        err=True,
    )


def _shown(by: str) -> list[str]:
    return ["model", by, "currency", "orders", "share", "sales_minor", "margin_minor", "removal_effect", "error"]


def _say_notes(settings: Settings, filters: Row) -> None:
    """Print how many orders are credited and how many are left out. Warn of anything that makes the credits less
    reliable, such as unknown costs. `filters`: the period, goods rates and cut of the question."""
    with answered(settings, "quiet", "attribution-notes", **filters) as answer:
        notes = answer.row()
    counted = (
        "{orders:count} order{orders:s} credited; left out: {cancelled:count} cancelled, {refunded:count} refunded in"
        " full"
    )
    echo_wrapped(say(counted, **notes), err=True)
    if notes["currencies"] > 1:
        warn("{n:count} currencies; they are not added up", n=notes["currencies"])
    for name, words in _NOTES.items():
        if notes[name]:
            warn(words, n=notes[name], adds_nothing=note(ADDS_NOTHING))


def _explain(settings: Settings, output: str, order: str, models: list[str | Row] | None, past: Row) -> None:
    with answered(settings, output, "attribution-order", order=order, models=models, **past) as answer:
        rows = [row | {"credits": {c["model"]: c["credit"] for c in row["credits"]}} for row in rows_of(answer)]
    if output != "table":
        print_rows(rows, output)
        return
    head = ("order_id", "person", "paid_at", "currency", "sales_minor")
    print_row({name: rows[0][name] for name in head}, output)
    click.echo()
    names = list(dict.fromkeys(name for row in rows for name in row["credits"]))
    shown = [
        {n: v for n, v in row.items() if n not in (*head, "credits")}
        | {name: row["credits"].get(name) for name in names}
        for row in rows
    ]
    print_rows(shown, output)


@attribution.command()
@click.argument("one")
@click.argument("other")
@_by_option
@_window_options
@zone_option()
@past_options
@settings_options(*LOG, "database")
@output_option
def compare(one: str, other: str, by: str, settings: Settings, output: str, **filters: Any) -> None:
    """Show side by side what the models ONE and OTHER credit for the same orders.

    \b
    coupon-ledger attribution compare last markov
    coupon-ledger attribution compare first my-model --by campaign --since 2026-11-01
    """
    if one == other:
        raise click.UsageError("name two different models")
    with answered(
        settings, output, "attribution", models=_models_named(settings, (one, other)), by=by, **filters
    ) as answer:
        rows = list(rows_of(answer))
    credited = {(row["model"], row["currency"], row[by]): row for row in rows}
    places = dict.fromkeys((row["currency"], row[by]) for row in rows)
    print_rows((_beside(one, other, by, place, credited) for place in places), output)


def _beside(one: str, other: str, by: str, place: tuple[str, str], credited: dict[Any, Row]) -> Row:
    nothing = {"orders": 0.0, "sales_minor": 0}
    first, second = (credited.get((name, *place), nothing) for name in (one, other))
    return {
        by: place[1],
        "currency": place[0],
        f"orders {one}": first["orders"],
        f"orders {other}": second["orders"],
        "orders difference": second["orders"] - first["orders"],
        f"sales_minor {one}": first["sales_minor"],
        f"sales_minor {other}": second["sales_minor"],
        "sales_minor difference": second["sales_minor"] - first["sales_minor"],
    }


@attribution.group()
def models() -> None:
    """List, define and show models of attribution.

    \b
    coupon-ledger attribution models list
    """


@models.command("list")
@settings_options(*LOG)
@output_option
def list_models(settings: Settings, output: str) -> None:
    """List the built-in models and the defined ones.

    \b
    coupon-ledger attribution models list
    """
    from coupon_ledger.ledger.labels import codes
    from coupon_ledger.questions.attribution.models import BUILT_IN, KINDS, WHEN

    rows = [
        {
            "name": name,
            "kind": model.kind,
            "中文": codes()[model.kind].zh,
            "parameters": model.parameters,
            "credits": say(KINDS[model.kind]) if output == "table" else KINDS[model.kind],
            "use_for": say(WHEN[model.kind]) if output == "table" else WHEN[model.kind],
            "defined": history[-1]["defined_at"] if history else None,
        }
        for name, (model, history) in ({n: (m, []) for n, m in BUILT_IN.items()} | _defined(settings)).items()
    ]
    if output == "table":
        rows = [{name: value for name, value in row.items() if name != "中文"} for row in rows]
    print_rows(rows, output)


@models.command("show")
@click.argument("name")
@settings_options(*LOG)
@output_option
def show_model(name: str, settings: Settings, output: str) -> None:
    """Show all definitions of one model, with the operator and the reason of each. The last one is in force.

    \b
    coupon-ledger attribution models show my-model
    """
    from coupon_ledger.ledger.errors import NotThere
    from coupon_ledger.questions.attribution.models import BUILT_IN

    if name in BUILT_IN:
        model = BUILT_IN[name]
        print_rows([{"name": name, "kind": model.kind, "parameters": model.parameters, "defined_at": None,
                     "operator": None, "why": "built in"}], output)  # fmt: skip
        return
    defined = _defined(settings)
    if name not in defined:
        raise NotThere(f"model {name}: there is none of that name; see `coupon-ledger attribution models list`")
    print_rows(defined[name][1], output)


@models.command()
@click.argument("name")
@click.option("--kind", required=True, help="last, first, linear, time_decay, position, markov, shapley, redeemed.")
@click.option(
    "--look-back-days", type=float, help="How long before the payment a touch counts; at most 90. [default: 30]"
)
@click.option("--half-life-days", type=float, help="time_decay: days after which credit halves. [default: 7]")
@click.option("--first-share", type=float, help="position: share of the first touch. [default: 0.4]")
@click.option("--last-share", type=float, help="position: share of the last touch. [default: 0.4]")
@click.option(
    "--worth",
    type=click.Choice(["orders", "rate"]),
    help="shapley: worth of a set of channels: orders of people who met only these, or their buying rate."
    " [default: orders]",
)
@click.option(
    "--draws", type=int, help="shapley, --worth rate, above 12 channels: number of random orderings. [default: 5000]"
)
@operator_options
@settings_options(*LOG, "database")
@output_option
def define(
    name: str, kind: str, why: str | None, operator: str | None, settings: Settings, output: str, **parameters: Any
) -> None:
    """Define a model called NAME, or change its definition. The log keeps all definitions.

    \b
    coupon-ledger attribution models define patient --kind time_decay --half-life-days 21 --look-back-days 90 \\
        --why "our customers take their time"
    """
    from coupon_ledger.ledger import operations
    from coupon_ledger.questions.attribution.models import BUILT_IN, DEFINED, KINDS, made

    if name in BUILT_IN or name == "all" or "," in name:
        raise click.UsageError(f"model {name}: this name is taken, or has a comma in it; choose another")
    if kind not in KINDS:
        raise click.UsageError(f"--kind {kind}: there is none; there are {', '.join(KINDS)}")
    who, because = signed(why, operator)
    chosen = {n: value for n, value in parameters.items() if value is not None}
    model = made({"name": name, "kind": kind, **chosen})
    with appending(settings) as log:
        operations.append(log, DEFINED, why=because, operator=who, subject=name, details={"kind": kind, **chosen})
    print_row({"name": name, "kind": kind, **model.parameters}, output)


def _models_named(settings: Settings, names: Sequence[str]) -> list[str | Row] | None:
    """The models called `names`, in the form that questions take: the name of a built-in model, or the fields of a
    defined one. None, which means all built-in models, if `names` is empty or contains `all`.

    Reads the log only if a name is not that of a built-in model. Raises `NotThere` for an unknown name.
    """
    from coupon_ledger.ledger.errors import NotThere
    from coupon_ledger.questions.attribution.models import BUILT_IN

    wanted = [name for names_text in names for name in names_text.split(",")]
    if not wanted or "all" in wanted:
        return None
    if all(name in BUILT_IN for name in wanted):
        return [*wanted]
    defined = _defined(settings)
    if unknown := [name for name in wanted if name not in BUILT_IN and name not in defined]:
        raise NotThere(f"model {unknown[0]}: there is none of that name; see `coupon-ledger attribution models list`")
    return [name if name in BUILT_IN else defined[name][0].model_dump(exclude_unset=True) for name in wanted]


def _defined(settings: Settings) -> dict[str, tuple[Model, list[Row]]]:
    """The models that the log defines. Each name maps to the model in force and the rows of all its definitions, oldest
    first; the last definition is in force."""
    from coupon_ledger.ledger.errors import WrongQuestion
    from coupon_ledger.ledger.operations import operations_of
    from coupon_ledger.questions.attribution.models import DEFINED, made

    models: dict[str, tuple[Model, list[Row]]] = {}
    for done in operations_of(settings.log, DEFINED):
        name = done.subject or ""
        try:
            model = made({"name": name, **(done.details or {})})
        except WrongQuestion as error:
            warn("{what}: of a newer coupon-ledger; left out", what=str(error))
            continue
        row = {"name": name, "kind": model.kind, "parameters": model.parameters, "defined_at": done.occurred_at,
               "operator": done.operator, "why": done.reason}  # fmt: skip
        models[name] = (model, [*(models[name][1] if name in models else []), row])
    return models
