"""One request for a page: the viewer, the URL, the filters, and the answers that the page is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, urlencode

from coupon_ledger.api.pages.answers import Found, PageAnswers
from coupon_ledger.api.pages.components import Change, Choice, Component, FilterBar, Link
from coupon_ledger.api.pages.filters import AGAINST, KEPT, PERIODS, SLICES, Filters, address, filters_of
from coupon_ledger.api.service.callers import Caller
from coupon_ledger.api.service.owner_link import State
from coupon_ledger.ledger.plain import plain
from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view


@dataclass(frozen=True)
class Page:
    """What a page shows. `under`: below its title. `further`: filters besides those of every page. `slices`: by which
    dimensions it can be narrowed; None if it has no filters at all. `status`: of the response."""

    title: str
    parts: Sequence[Component]
    under: Component | None = None
    crumbs: Sequence[Link] = ()
    slices: Sequence[str] | None = ()
    further: Sequence[Choice] = ()
    known_at: bool = True
    status: int = 200


@dataclass(frozen=True)
class Looking:
    """One request. `path`: that of the page; `query`: the parameters of its URL. `state`: the owner's present state."""

    caller: Caller
    path: str
    query: Mapping[str, str]
    state: State
    answers: PageAnswers
    values: Mapping[str, str] = field(default_factory=dict)
    """The parts of the path that are names, such as that of a campaign."""

    @cached_property
    def filters(self) -> Filters:
        clock = self.state.data_clock
        return filters_of(self.query, None if clock is None else clock.replace(tzinfo=None), view().zone)

    async def found(self, question: str, /, **parameters: Any) -> Found:
        """The answer to a question, of the past that the filters name, if they name one."""
        from coupon_ledger.questions.parameters import OfPast
        from coupon_ledger.questions.registry import QUESTIONS

        if self.filters.cut and issubclass(QUESTIONS[question].model, OfPast):
            parameters = self.filters.cut | parameters
        given = {name: value for name, value in parameters.items() if value is not None}
        return await self.answers.ask(self.caller, question, given)

    def may(self, *questions: str) -> bool:
        """Whether the viewer may ask these questions."""
        from coupon_ledger.questions.access.compiled import allows
        from coupon_ledger.questions.registry import QUESTIONS

        return all(allows(QUESTIONS[name], self.caller.access) for name in questions)

    async def rows(self, question: str, /, **parameters: Any) -> Sequence[Row]:
        return (await self.found(question, **parameters)).rows

    async def metrics(self, names: Sequence[str], /, **more: Any) -> Sequence[Row]:
        """The values of metrics in the period and slice of the filters. `more`: `by`, `grain`, `compare`, …"""
        return await self.rows("metrics", **self._of_metrics(names, more))

    def href(self, path: str | None = None, /, **changes: Any) -> str:
        """The URL of a page with the same filters."""
        return address(self.path if path is None else path, self.query, **changes)

    def to(self, name: str, value: Any, /, **changes: Any) -> str:
        """The URL of the page of the object that stands in the column `name`; empty if there is none."""
        if not value or name not in _PAGE_OF:
            return ""
        return self.href(f"{_PAGE_OF[name]}/{quote(str(value), safe='')}", **changes)

    def links(self, names: Iterable[str], rows: Sequence[Row]) -> dict[str, list[str]]:
        """By column, where its values lead; without columns that lead nowhere."""
        return {name: [self.to(name, row[name]) for row in rows] for name in names if name in _PAGE_OF}

    def here(self, **changes: Any) -> str:
        """The URL of this page with all of its parameters, these changed."""
        kept = {name: value for name, value in self.query.items() if value and name not in changes}
        kept |= {name: str(value) for name, value in changes.items() if value not in (None, "")}
        return f"{self.path}?{urlencode(kept)}" if kept else self.path

    def csv(self, question: str, /, **parameters: Any) -> str:
        """Where a question's whole answer is to be had as CSV."""
        given = {name: value for name, value in parameters.items() if value is not None}
        given = self.filters.cut | given
        texts = {name: _in_address(value) for name, value in given.items()}
        return f"/v1/questions/{question}?{urlencode({**texts, 'format': 'csv'})}"

    def metrics_csv(self, names: Sequence[str], /, **more: Any) -> str:
        return self.csv("metrics", **self._of_metrics(names, more))

    def _of_metrics(self, names: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
        filters = self.filters
        given = {"since": filters.since, "until": filters.until, "where": filters.where(), "zone": view().zone}
        return {"names": list(names), **given, **more}

    def filter_bar(self, page: Page) -> FilterBar | None:
        if page.slices is None:
            return None
        period = self.query.get("period", "")
        choices = [
            Choice(label("period"), "period", _with_present(_periods(), period, self.filters.name), period),
            Choice(say("against"), "against", [(code, say(_AGAINST[code])) for code in AGAINST],
                   self.query.get("against", "")),
        ]  # fmt: skip
        chosen = [(name, self.query[name]) for name in SLICES if self.query.get(name)]
        choices += [Choice(label(name), name, [("", say("all")), (value, value)], value) for name, value in chosen]
        hidden = {
            name: value
            for name, value in self.query.items()
            if name in (*KEPT, "tab", "sort") and value and name not in {one.name for one in choices}
        }
        return FilterBar([*choices, *page.further], (), None, hidden)


_PAGE_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(("campaign", "campaign_id"), "/campaigns"),
    **dict.fromkeys(("coupon", "coupon_id"), "/coupons"),
    **dict.fromkeys(("order", "order_id"), "/orders"),
    **dict.fromkeys(("user", "user_id", "owner"), "/users"),
}
"""By column: where the pages of the objects are that stand in it."""
_PERIODS: Final = {
    "": "today",
    "yesterday": "yesterday",
    "7d": "last 7 days",
    "30d": "last 30 days",
    "month": "this month",
    "year": "this year",
    "all": "all time",
}
_AGAINST: Final = {"": "last year", "previous": "period before", "none": "nothing"}


def _periods() -> list[tuple[str, str]]:
    return [(code, say(_PERIODS[code])) for code in PERIODS]


def _with_present(options: list[tuple[str, str]], value: str, name: str) -> list[tuple[str, str]]:
    """The options, with the present value if it is another one; the first says which day it is."""
    named = [(code, name if code == value else text) for code, text in options]
    return named if value in dict(options) else [*named, (value, name)]


def _in_address(value: Any) -> str:
    import json

    if isinstance(value, datetime):
        return str(plain(value))
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_the_second(row: Row) -> Row:
    """The row with its instants cut to seconds, as pages show them. CSV has them in full."""
    return {k: v.replace(microsecond=0) if isinstance(v, datetime) else v for k, v in row.items()}


Maker = Callable[[Looking], Awaitable[Page]]
"""Makes a page."""


async def nothing() -> Sequence[Row]:
    """The rows of a question that is not asked."""
    return ()


async def together(*asked: Awaitable[Sequence[Row]]) -> list[Sequence[Row]]:
    """The rows of several questions, asked at once."""
    return list(await asyncio.gather(*asked))


def change_of(row: Row, name: str, filters: Filters) -> Change | None:
    """How the metric `name` has changed against what the filters compare with."""
    change = row.get(f"{name}_change")
    if filters.compare is None or change is None:
        return None
    against = {"last-year": say("last year"), "previous": say("the period before")}[filters.compare]
    share = Quantity("share").exact(abs(change))
    text = say("{share} against {what}", share=share, what=against)
    return Change(text, None if abs(change) < 0.0005 else change > 0)
