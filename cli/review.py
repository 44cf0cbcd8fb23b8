"""`review`: one report of a campaign (复盘), built from the questions of the other commands: goal and result, funnel,
trend, channels, customers, causal effects, cost, losses, anomalies, and a comparison with earlier campaigns.

Each section is a function that takes the `CampaignAnswers`. If its data are missing, the section says so. A layout (the
sections, their order, the goods rates) can be saved under a name; it is recorded as an operation in
`coupon.operations`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from coupon_ledger.cli.appending import appending
from coupon_ledger.cli.asking import together
from coupon_ledger.cli.options import (
    LOG,
    goods_rate_option,
    operator_options,
    past_options,
    settings_options,
    signed,
    zone_option,
)
from coupon_ledger.cli.view import in_english
from coupon_ledger.ledger.errors import UnknownTemplate, UnusableFile
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.review import SECTIONS, CampaignAnswers, Section, as_json, review_of
from coupon_ledger.reports.text import Row

DEFINED: Final = "review_template_defined"


@click.command()
@click.argument("campaign", required=False)
@click.option(
    "--section",
    "sections",
    multiple=True,
    type=click.Choice(list(SECTIONS)),
    help="Only this section (repeatable, in this order).",
)
@click.option("--template", help="Use the layout saved under this name.")
@click.option("--save-template", metavar="NAME", help="Save this layout under a name; needs --why.")
@click.option("--list-templates", is_flag=True, help="List the saved layouts.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "html", "json"]),
    help="Format of the review. [default: by the name of --to, else markdown]",
)
@click.option("--to", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@goods_rate_option
@operator_options
@zone_option(exposed=True)
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
    goods_rates: dict[str, int] | None,
    why: str | None,
    operator: str | None,
    zone: str,
    settings: Settings,
    **past: Any,
) -> None:
    """Review CAMPAIGN (复盘): one report of goal and result, funnel, trend, channels, customers, causal effects, cost,
    losses, anomalies, and a comparison with earlier campaigns; as Markdown, as a page with charts, or as JSON.

    If the data of a section are missing, the section says so. --save-template saves the sections, their order and the
    goods rates under a name, and --template uses them again.

    \b
    coupon-ledger review 18
    coupon-ledger review 18 --goods-rate 75 --to review.html
    coupon-ledger review 18 --section goal --section cost --save-template short --why "weekly"
    coupon-ledger review 19 --template short --known-at 2026-11-12 --format json
    """
    if list_templates:
        from coupon_ledger.cli.output import print_rows

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
    form = form or _form_of(file)
    if form == "json":
        in_english()
    with together(settings) as source:
        ask = CampaignAnswers(
            source, campaign, {n: v for n, v in past.items() if v is not None}, layout["goods_rates"], zone
        )
        content = review_of(ask, layout["sections"])
    _print(_written(form, file, ask, content), file, campaign)


_ENDINGS: Final = {
    "": "markdown",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "markdown",
    ".html": "html",
    ".htm": "html",
    ".json": "json",
}


def _form_of(file: Path | None) -> str:
    """The format that the ending of the file's name means. Raises `UnusableFile` for an ending that means none."""
    ending = file.suffix.lower() if file else ""
    if ending not in _ENDINGS:
        known = ", ".join(filter(None, _ENDINGS))
        raise UnusableFile(
            f"file {file}: a review cannot be written as {ending}; end the name with one of {known}, or name what to"
            " write with --format"
        )
    return _ENDINGS[ending]


def _written(form: str, file: Path | None, ask: CampaignAnswers, sections: Mapping[str, Section]) -> str:
    if form == "json":
        return as_json(ask, sections)
    from coupon_ledger.reports import review_page

    return review_page.html(ask, sections) if form == "html" else review_page.markdown(ask, sections, file)


def _print(text: str, file: Path | None, campaign: str) -> None:
    if file is None:
        click.echo(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnusableFile(f"file {file}: cannot be written ({error.strerror}); choose another place") from error
    click.echo(say("review of {campaign} written to {file}", campaign=campaign, file=str(file)))


def _keep(name: str, layout: Row, by: tuple[str, str], settings: Settings) -> None:
    from coupon_ledger.ledger import operations

    who, because = by
    with appending(settings) as log:
        operations.append(log, DEFINED, why=because, operator=who, subject=name, details=layout)


def _templates(settings: Settings) -> dict[str, Row]:
    """By name, the layout that was last saved under it, with `operator` and `reason`."""
    from coupon_ledger.ledger.operations import operations_of

    return {
        str(done.subject): {
            "name": done.subject,
            "sections": _known_sections((done.details or {}).get("sections")),
            "goods_rates": _rates((done.details or {}).get("goods_rates")),
            "operator": done.operator,
            "reason": done.reason,
        }
        for done in operations_of(settings.log, DEFINED)
    }


def _rates(saved: object) -> dict[str, int] | None:
    """The goods rates of a saved layout, by category; None if it has none. Earlier releases saved rates as JSON
    text."""
    try:
        rates = json.loads(saved) if isinstance(saved, str) else saved
    except ValueError:
        return None
    return rates if isinstance(rates, dict) else None


def _known_sections(saved: object) -> list[str]:
    """The sections of a saved layout, in its order, without sections that this version does not have."""
    return [name for name in saved if name in SECTIONS] if isinstance(saved, list) else []
