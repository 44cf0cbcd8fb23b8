# ruff: noqa: E501 - sentences and patterns are not broken
"""From a question in plain words to a question of the registry. Pure: text, names, clock and zone in; a reading out.

Objects, top N and times are found first by patterns; the rest of the text is divided into known phrases. Every word must
be used, or be known to mean nothing by itself. Otherwise the outcome is `Unsure`: no answer is better than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.questions.metrics.periods import Zone
from coupon_ledger.questions.plain_words import times
from coupon_ledger.questions.plain_words.lexicon import Lexicon, Meaning, Span, corrected, lexicon_of, single, words
from coupon_ledger.questions.plain_words.readings import (
    Chip,
    Outcome,
    Reading,
    Refused,
    Understood,
    Unsure,
    Vocabulary,
)
from coupon_ledger.questions.plain_words.text import MOST_CHARACTERS, Token, folded, plain, stem, tokens
from coupon_ledger.questions.plain_words.times import NUMBER, Period
from coupon_ledger.questions.registry import QUESTIONS

_EVENING: Final = re.compile(r"([昨今])晚(?=[\d一二三四五六七八九十])")
_PER: Final = ("per", "each", "every", "foreach", "forevery", "ineach", "每", "每个", "每一个", "各", "各个")
"""Before a metric, these ask for an average, which the metrics do not have. "By" before a metric only ranks."""
TITLES: Final = {
    "state": "state of a coupon",
    "history": "events of a coupon",
    "coupons": "list of coupons",
    "order": "an order with its coupons",
    "user": "coupons of a user",
    "alert": "an alert",
    "alerts": "alerts",
    "alert-groups": "alerts in groups",
    "alert-stats": "statistics of alerts",
    "alert-rules": "alert rules in force",
    "alert-silences": "silences of alerts",
    "expiring": "coupons that expire soon",
    "expiries": "why coupons expired",
    "violation-counts": "broken rules, counted",
    "violations": "broken rules, listed",
    "dead-letters": "dead letters",
    "campaigns": "campaigns with their funnel",
    "campaign": "a campaign",
    "campaign-targets": "targets of a campaign",
    "states": "coupons per state",
    "finance-losses": "money lost to broken rules",
    "finance-budgets": "budgets: spent, left, exhausted when",
    "finance-refunds": "refunds and discounts clawed back",
    "finance-categories": "sales, discounts and margin by category of goods",
    "finance-split": "who bears the discounts, and of which kind they are",
    "finance-cash": "money in and out by day",
    "finance-statement": "statement of the outstanding coupons",
    "finance-reconciliation": "how the numbers of all reports add up",
    "finance-doubts": "what makes figures doubtful",
    "finance-margin": "net sales and margin of all orders",
    "customers-at-use": "new and returning customers among users of coupons",
    "customer-segments": "customer segments by recency, frequency and money",
    "customer-tiers": "customer tiers",
    "customers-lapsing": "customers who are about to lapse",
    "cohorts": "retention by month of the first order",
    "repurchase": "customers who bought again",
    "behaviour": "from touch to order",
    "attribution": "what channels or campaigns earned, by several models",
    "attribution-roi": "ROI of a campaign by several models",
    "experiments": "experiments",
    "experiment": "what a campaign caused",
    "totals": "totals of the ledger",
    "due": "coupons that are due to expire",
}
REASONS: Final = {
    "weather": "the ledger knows coupons, orders, campaigns and users, not the weather",
    "market": "the ledger knows this company's coupons and orders only, not the market or competitors",
    "product": "events name no single products or brands; orders have categories of goods",
    "future": "the ledger records what happened and does not predict; only expiry, budgets and stock are projected",
    "traffic": "the ledger has no visits, clicks or downloads, only coupons, orders and touches",
    "opinion": "the ledger has no opinions or ratings",
    "people": "the ledger has no personal details beyond ids and segments",
    "logistics": "the ledger has no deliveries or goods in stock",
    "company": "the ledger has no accounts of the company beyond orders, discounts and booked costs",
    "writing": "questions only read; nothing can be changed here",
    "why": "the ledger does not know why; it can show what changed, and by which campaign, channel or store",
}
_INSTEAD: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "product": ("finance-categories", {}),
    "future": ("finance-budgets", {"days": 7}),
    "why": ("metrics", {"names": ["discount_cost_minor"], "by": ["campaign"]}),
    "opinion": ("repurchase", {}),
    "people": ("customer-segments", {}),
}
_SUBSTITUTES: Final = {
    "orders": "coupon_orders",
    "gmv_minor": "coupon_gmv_minor",
    "net_sales_minor": "coupon_net_sales_minor",
    "average_order_minor": "average_order_with_coupon_minor",
    "cost_minor": "discount_cost_minor",
    "use_rate": "used_events",
}
_LOW_IS_GOOD: Final = ("cost", "expir", "discount", "return", "revoked", "without")


@dataclass
class _Draft:
    """What was found in a text, before it is put together."""

    clock: datetime
    zone: str
    local: datetime
    metrics: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    where: dict[str, list[str]] = field(default_factory=dict)
    period: Period | None = None
    grain: str | None = None
    compare: str | None = None
    unit: str | None = None
    order: str | None = None
    top: int | None = None
    asks: list[int] = field(default_factory=list)
    doubts: list[Note] = field(default_factory=list)


class _Stop(Exception):
    """Ends the reading of a text with this outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


def understand(text: str, vocabulary: Vocabulary, clock: datetime | None, zone: str, lang: str = "en") -> Outcome:
    """What `text` asks. `clock`: the data's clock, naive UTC; None if nothing was consumed. `zone`: that of days and
    clock times. `lang` is not needed to understand: both languages may be mixed. Never raises for any text."""
    if clock is None:
        return Refused(note("nothing has been consumed yet"))
    shown = plain(text)
    if not shown.strip():
        return Unsure(note("the question is empty; ask for example: uses by campaign last week"))
    if len(shown) > MOST_CHARACTERS or len(text) > MOST_CHARACTERS:
        return Unsure(
            note("the question has more than {n:count} characters; ask one thing at a time", n=MOST_CHARACTERS)
        )
    try:
        return _understood(shown, vocabulary, clock, zone)
    except _Stop as stop:
        return stop.outcome


def _understood(shown: str, vocabulary: Vocabulary, clock: datetime, zone: str) -> Outcome:
    local = Zone(zone).local(clock)
    draft = _Draft(clock, zone, local)
    lower = folded(shown)
    lexicon = lexicon_of(vocabulary)
    if (one := _single(shown, lower, draft)) is not None:
        return one
    lower, fixed = _respelled(_EVENING.sub(r"\1天晚上", lower), lexicon)
    draft.doubts += fixed
    named = _named_spans(lower, lexicon, local)
    rest, draft.top, order = _top(_hidden(lower, named), lower)
    draft.order = order
    found = times.periods(rest, local)
    rest = _restored(_hidden(rest, [(p.start, p.end) for p in found]), lower, named)
    token_list = tokens(rest)
    spans = lexicon.divided(token_list, _breaks(token_list, rest))
    _read(spans, draft, vocabulary, token_list)
    _take_periods(draft, found, lower)
    return _finished(draft)


# --- names before times: "618 sale" is a campaign, not a date


def _named_spans(lower: str, lexicon: Lexicon, local: datetime) -> list[tuple[int, int]]:
    """Places of names of the database. A name that is also a time by itself, such as 双十一, is taken as the time."""
    token_list = tokens(lower)
    places = [
        (token_list[s.first].start, token_list[s.last - 1].end)
        for s in lexicon.divided(token_list)
        if any(m.role == "value" for m in s.meanings)
    ]
    return [(start, end) for start, end in places if not _is_time(lower[start:end], local)]


def _is_time(text: str, local: datetime) -> bool:
    return any(p.start == 0 and p.end == len(text) for p in times.periods(text, local))


def _hidden(text: str, places: Iterable[tuple[int, int]]) -> str:
    characters = list(text)
    for start, end in places:
        characters[start:end] = "\0" * (end - start)
    return "".join(characters)


def _restored(rest: str, lower: str, places: Iterable[tuple[int, int]]) -> str:
    characters = list(rest)
    for start, end in places:
        characters[start:end] = lower[start:end]
    return "".join(characters)


def _breaks(token_list: Sequence[Token], rest: str) -> frozenset[int]:
    return frozenset(n for n in range(1, len(token_list)) if "\0" in rest[token_list[n - 1].end : token_list[n].start])


# --- one object

_ID: Final = r"(?P<id>[a-z0-9](?:[a-z0-9._:-]*[a-z0-9])?)(?![a-z0-9])"
_NUMBERED: Final = r"\s*(?:id|no\.?|number|num|#|号|编号|:)*\s*"
_OBJECTS: Final = tuple(
    (kind, re.compile(rf"(?:{before}){_NUMBERED}{_ID}|(?<![a-z0-9])(?P<id2>[a-z]+[-_]?[0-9][a-z0-9_-]*)\s*(?:这张|这个|这笔|号)?(?:{after})"))
    for kind, before, after in (
        ("code", r"\b(?:coupon|promo|voucher|discount) code|\bcode|优惠码|券码", "优惠码|券码"),
        ("coupon", r"\bcoupons?|\bvouchers?|优惠券|券", r"\s?coupon\b|\s?voucher\b|优惠券|券"),
        ("order", r"\borders?|订单", r"\s?order\b|订单"),
        ("alert", r"\balerts?|告警|警报", r"告警"),
        ("user", r"\busers?|\bcustomers?|\bmembers?|用户|客户|顾客|会员", "用户|客户|顾客|会员"),
    )
)  # fmt: skip
_BARE: Final = re.compile(r"(?<![a-z0-9])(?P<id>(?P<letter>[cou])-?\d{1,12})(?![a-z0-9])")
_LETTERS: Final = {"c": "coupon", "o": "order", "u": "user"}


def _single(shown: str, lower: str, draft: _Draft) -> Outcome | None:
    """The question about one coupon, order, user or alert, if the text names one by its id."""
    for kind, pattern in _OBJECTS:
        for match in pattern.finditer(lower):
            group = "id" if match["id"] else "id2"
            if any(c.isdigit() for c in match[group]) and _is_id(lower, match.end(), match[group]):
                return _about(kind, shown[match.start(group) : match.end(group)], match.span(), lower, draft)
    if (bare := _BARE.search(lower)) and len(tokens(lower)) < 14:
        kind = _LETTERS[bare["letter"]]
        outcome = _about(kind, shown[bare.start("id") : bare.end("id")], bare.span(), lower, draft)
        return outcome
    return None


def _is_id(lower: str, end: int, text: str) -> bool:
    after = lower[end:].lstrip()
    dated = re.fullmatch(r"(?:19|20)\d\d(?:-\d\d?)*", text) or re.match(r"\d+(?:am|pm|h|d|%)$", text)
    return not dated and not re.match(
        r"(?:天|日|月|年|点|张|个|次|笔|元|%|days?\b|hours?\b|weeks?\b|months?\b|percent)", after
    )


def _about(kind: str, of: str, place: tuple[int, int], lower: str, draft: _Draft) -> Outcome:
    rest = _hidden(lower, [place])
    found = times.periods(rest, draft.local)
    rest = _hidden(rest, [(p.start, p.end) for p in found])
    token_list = tokens(rest)
    spans = single().divided(token_list, _breaks(token_list, rest))
    wanted = [m.value for s in spans for m in s.meanings[:1] if m.role == "single"]
    name, values = _question_about(kind, of, wanted)
    chips = [
        Chip("question", name, note("question: {title}", title=note(TITLES[name]))),
        Chip("object", of, note("id {id}", id=of)),
    ]
    if found:
        at, doubt = _as_of(found, draft)
        values["at"] = at
        chips.append(Chip("as_of", at, note("state as of {at:instant}", at=at)))
        draft.doubts += doubt
    chips = [*chips, _zone_chip(draft)] if found else chips
    reading = Reading(name, values, tuple(chips))
    unknown = [t.text for s in spans if not s.meanings for t in token_list[s.first : s.last]]
    if unknown:
        return Unsure(note("not understood: {words}", words=_quoted(unknown)), (reading,))
    others = () if name != "state" else (replace(reading, question="history"),)
    return Understood(reading, "likely" if draft.doubts else "sure", tuple(draft.doubts), others)


def _question_about(kind: str, of: str, wanted: Sequence[str]) -> tuple[str, dict[str, Any]]:
    if kind == "code":
        return "coupons", {"code": of}
    if kind == "coupon":
        return ("history" if "history" in wanted else "state"), {"coupon": of}
    return kind, {kind: of}


def _as_of(found: Sequence[Period], draft: _Draft) -> tuple[datetime, list[Note]]:
    """The instant up to which events count, and whether people could mean another."""
    [period, *more] = found
    end = period.since if period.kind in ("instant", "at") else period.until
    if more or end is None or period.future:
        raise _Stop(Unsure(note("one object has a state at one instant; name one time in the past")))
    at = min(Zone(draft.zone).instant(end), draft.clock + timedelta(seconds=1))
    exact = period.kind in ("instant", "until") or (period.since is not None and at > draft.clock)
    return at, [] if exact else [note("the state at the end of that time is meant, not what happened in it")]


# --- top N

_COUNTED: Final = NUMBER
_TOP: Final = re.compile(
    rf"\b(?P<word>top|first|best|leading|biggest|largest|highest|worst|bottom|lowest|last|smallest|weakest)[ -]?(?P<n>{_COUNTED})\b(?! ?(?:day|week|hour|month|year|minute|quarter))"
    rf"|\b(?P<n2>{_COUNTED}) (?P<word2>best|worst|biggest|largest|smallest|lowest|highest|leading|weakest)\b"
    rf"|(?P<word4>最高|最多|最大|最低|最少|最小|最好|最差)的?\s?(?P<n4>{_COUNTED})\s?(?:名|个|大|位|家|条)"
    rf"|(?P<word3>前|后|倒数|最后|top)\s?(?P<n3>{_COUNTED})(?:名|个|大|位|家|条)?(?!天|日|周|月|年|个月|小时|分钟|个小时|个星期|季)"
)  # fmt: skip
_LOW: Final = ("bottom", "lowest", "last", "smallest", "后", "倒数", "最后", "最低", "最少", "最小")


def _top(rest: str, lower: str) -> tuple[str, int | None, str | None]:
    match = _TOP.search(rest)
    if match is None:
        return rest, None, None
    word = match["word"] or match["word2"] or match["word3"] or match["word4"]
    count = times.number(match["n"] or match["n2"] or match["n3"] or match["n4"])
    if not 1 <= count <= 1000:
        return rest, None, None
    order = (
        "asc"
        if word in _LOW
        else "worst"
        if word in ("worst", "weakest", "最差")
        else "best"
        if word in ("best", "最好")
        else "desc"
    )
    return _hidden(rest, [match.span()]), count, order


# --- phrases


def _respelled(lower: str, lexicon: Lexicon) -> tuple[str, list[Note]]:
    """The text with obvious mistypes of known words corrected, and a note on each correction."""
    known = lexicon.words | _TIME_WORDS
    fixed: list[Note] = []
    text = lower
    for token in reversed(tokens(lower)):
        old = lower[token.start : token.end]
        if token.stem in known or old in known:
            continue
        if (new := corrected(token.stem, known)) is not None:
            text = text[: token.start] + new + text[token.end :]
            fixed.append(note("read “{old}” as “{new}”", old=old, new=new))
    return text, fixed


_TIME_WORDS: Final = frozenset(
    "yesterday today tomorrow week weekend month quarter year hour minute last past next previous this since until before"
    " after between january february march april june july august september october november december monday tuesday"
    " wednesday thursday friday saturday sunday christmas black singles double eleven twelve night evening morning noon"
    " midnight from with date valentine".split()
)


def _quoted(unknown: Iterable[str]) -> str:
    joined = ""
    for word in unknown:
        glue = "" if joined and not (word.isascii() and joined[-1].isascii()) else " " if joined else ""
        joined += glue + word
    return joined[:60]


def _read(spans: list[Span], draft: _Draft, vocabulary: Vocabulary, token_list: list[Token]) -> None:
    """Sort what the spans mean into the draft."""
    unknown: list[str] = []
    events: list[str] = []
    units: list[str] = []
    counted: str | None = None
    refused: list[str] = []
    marker = previous = ""
    dimensions: list[tuple[str, str]] = []  # with the marker before it
    last_value = ""
    trend = versus = per = when = single_ones = False
    loose_grain: str | None = None
    for n, span in enumerate(spans):
        meaning = _chosen(span, marker)
        role, value = meaning.role, meaning.value
        if role == "unknown":
            word = token_list[span.first].stem
            if last_value and word in (known := _numbered(vocabulary, last_value)):
                draft.where[last_value].append(known[word])
            else:
                unknown.append(token_list[span.first].text)
        elif role == "marker":
            trend = trend or value == "trend"
            when = when or value == "when"
            versus = versus or any(m.value == "versus" for m in span.meanings)
            per = span_text(span, token_list) in _PER if value == "by" else per
            marker = value if value in ("by", "which", "count", "after_by") else marker
            if value == "after_by" and dimensions:
                dimensions[-1] = (dimensions[-1][0], "by")
            continue
        elif role in ("metric", "event", "unit", "preset") and marker == "by" and (per or role == "unit"):
            unknown.append(span_text(span, token_list))
        elif role == "metric":
            draft.metrics.append(value)
        elif role == "preset":
            _take_preset(words()["presets"][value], draft)
        elif role == "ask":
            draft.asks.append(value)
        elif role == "event":
            events.append(value)
        elif role == "unit":
            counted = value if marker == "count" or span_text(span, token_list).startswith(("多少", "几")) else counted
            single_ones = (
                single_ones or marker == "which" or bool(draft.top and n and not draft.metrics and not dimensions)
            )
            units.append(value)
        elif role == "dimension":
            follows = previous == "dimension" and dimensions and dimensions[-1][1] == "by"
            dimensions.append((value, "by" if marker in ("by", "which") or follows else ""))
        elif role == "grain":
            if marker in ("by", "which") or span_text(span, token_list).endswith("ly") or span.last - span.first > 1:
                draft.grain = value
                if marker == "which":
                    draft.order = draft.order or "desc"
            else:
                loose_grain = value
        elif role == "comparison":
            draft.compare = value
            said = span_text(span, token_list)
            draft.unit = next((u for u in ("day", "week", "month", "quarter") if u in said), None)
        elif role == "order":
            draft.order = draft.order or value
        elif role == "value":
            last_value = value[0]
            draft.where.setdefault(value[0], [])
            if value[1] not in draft.where[value[0]]:
                draft.where[value[0]].append(value[1])
            if len({m.value[0] for m in span.meanings if m.role == "value"}) > 1:
                draft.doubts.append(
                    note("this name stands for several things; it was read as {dimension:label}", dimension=value[0])
                )
        elif role == "refused" and not (
            value == "writing" and any(m.role != "filler" for s in spans[:n] for m in s.meanings[:1])
        ):
            refused.append(value)
        elif role == "refused":
            unknown.append(span_text(span, token_list))
        if role not in ("filler", "marker"):
            marker, previous = "", role
    _take_dimensions(dimensions, draft)
    if loose_grain and not draft.grain and (draft.order or trend):
        draft.grain = loose_grain
    elif loose_grain and not draft.grain:
        unknown.append(loose_grain)
    if trend and not draft.grain:
        draft.grain = "day"
        draft.doubts.append(note("a trend is shown by day"))
    if not draft.metrics and events:
        _take_events(events, units, counted, draft)
    if versus and not draft.compare:
        _compare_values(draft)
    ahead = "minutes_to_sell_out" in draft.metrics or any(
        _ask(n) in ("finance-budgets", "expiring") for n in draft.asks
    )
    if when and not ahead:
        unknown.append("when")
    if single_ones and not draft.asks:
        raise _Stop(
            Refused(
                note(
                    "metrics are not known by single coupon or customer; they are by campaign, channel, store and other dimensions"
                )
            )
        )
    if refused:
        _refuse(refused[0], draft)
    if unknown:
        raise _Stop(Unsure(note("not understood: {words}", words=_quoted(unknown)), _nearest(draft)))


def _ask(number: int) -> str:
    return str(words()["asks"][number]["question"])


def _refuse(reason: str, draft: _Draft) -> None:
    if reason == "future" and any(_ask(n) in ("expiring", "finance-budgets") for n in draft.asks):
        return
    instead = _nearest(draft) if draft.metrics or draft.asks else ()
    if not instead and reason in _INSTEAD:
        name, values = _INSTEAD[reason]
        instead = (Reading(name, values, (_question_chip(name, values),)),)
    raise _Stop(Refused(note(REASONS[reason]), instead))


def _question_chip(name: str, values: Any) -> Chip:
    if name == "metrics":
        return Chip("metric", values["names"], note("metric: {names:label}", names=list(values["names"])))
    return Chip("question", name, note("question: {title}", title=note(TITLES[name])))


def span_text(span: Span, token_list: Sequence[Token]) -> str:
    return "".join(token.stem for token in token_list[span.first : span.last])


def _chosen(span: Span, marker: str) -> Meaning:
    """Which of its meanings a phrase has here: after "by", a dimension rather than a name; otherwise the first."""
    if not span.meanings:
        return Meaning("unknown")
    if marker in ("by", "which"):
        for meaning in span.meanings:
            if meaning.role in ("dimension", "grain"):
                return meaning
    return min(
        span.meanings,
        key=lambda m: ("value", "metric", "preset").index(m.role) if m.role in ("value", "metric", "preset") else 3,
    )


def _numbered(vocabulary: Vocabulary, dimension: str) -> dict[str, str]:
    values = vocabulary.campaigns if dimension == "campaign" else vocabulary.values.get(dimension, ())
    return {stem(value.lower()): value for value in values}


def _take_preset(preset: Any, draft: _Draft) -> None:
    draft.metrics += preset["metrics"]
    draft.others += preset.get("others", [])
    if preset.get("unsure"):
        readings = tuple(_alternative(draft, [name]) for name in (*preset["metrics"], *preset["others"]))
        raise _Stop(Unsure(note("this can mean several metrics; choose one"), readings))
    if "order" in preset:
        draft.order = preset["order"]
        if not draft.where.get("campaign"):
            draft.by += [name for name in preset["by"] if name not in draft.by]
    if preset.get("doubt"):
        draft.doubts.append(note("read as {metrics:label}", metrics=list(preset["metrics"])))


def _take_dimensions(dimensions: list[tuple[str, str]], draft: _Draft) -> None:
    for value, marker in dimensions:
        if draft.where.get(value) and marker != "by":
            continue  # "the app channel": the word only says what the name is
        if value not in draft.by:
            if marker != "by" and not (draft.top or draft.order) and (draft.metrics or not draft.asks):
                draft.doubts.append(note("read as one row for each {dimension:label}", dimension=value))
            draft.by.append(value)


def _take_events(events: list[str], units: list[str], counted: str | None, draft: _Draft) -> None:
    """The metric of what happened to coupons: events, coupons or users."""
    distinct = [unit for unit in dict.fromkeys(units) if unit != "events"]
    unit = counted or ("users" if "users" in distinct else distinct[0] if distinct else "events")
    if len(distinct) > 1 and counted is None:
        draft.doubts.append(note("read as the number of {unit:word}", unit=unit))
    if len(set(events)) > 1:
        draft.doubts.append(note("read as separate metrics, each of what happened in the period"))
    for event in dict.fromkeys(events):
        draft.metrics.append(f"{event}_{unit}")


def _compare_values(draft: _Draft) -> None:
    """ "App versus web": one row for each."""
    for dimension, values in draft.where.items():
        if len(values) > 1 and dimension not in draft.by:
            draft.by.append(dimension)


# --- the period


def _take_periods(draft: _Draft, found: list[Period], lower: str) -> None:
    if len(found) == 2:
        _compare_periods(draft, found, lower)
    elif len(found) > 2:
        raise _Stop(Unsure(note("several periods are named; name one, or two to compare"), _nearest(draft)))
    elif found:
        draft.period = found[0]
        if _VERSUS.search(lower[: found[0].start][-14:]) and not draft.compare:
            _compare_with(draft, found[0])
    period = draft.period
    if period is None:
        return
    if period.kind in ("clock", "at"):
        day = times.today(draft.local)
        late = period.since is not None and period.since > draft.local
        shift = -times.DAY if late else timedelta(0)
        assert period.since is not None and period.until is not None and day
        draft.period = replace(period, since=period.since + shift, until=period.until + shift, doubt=True)
    if period.doubt or draft.period.doubt:  # type: ignore[union-attr]
        draft.doubts.append(note("the period could be another; see its dates"))
    ahead = period.since is not None and period.since > draft.local
    asked_ahead = any(_ask(n) == "expiring" for n in draft.asks)
    if (period.future or ahead) and not asked_ahead:
        raise _Stop(
            Refused(
                note(
                    "that time lies after the data's clock ({at:instant}); the ledger records what happened",
                    at=draft.clock,
                ),
                _nearest(replace(draft, period=None)),
            )
        )


_VERSUS: Final = re.compile(
    r"(?:\bvs\.?|\bversus|\bcompared? (?:with|to)|\bthan|\bagainst|比|相比|对比|较|与|和|同|跟|\band|\bto)(?: in| on| the)? ?$"
)


def _compare_periods(draft: _Draft, found: list[Period], lower: str) -> None:
    first, second = found
    if (first.since, first.until) == (second.since, second.until):
        if not re.search(r"previous|prior", lower[second.start : second.end]):
            raise _Stop(Unsure(note("the same period is named twice; name one, or two to compare"), _nearest(draft)))
        draft.period, draft.compare = first, "previous"
        return
    if (
        first.since is not None
        and second.since is not None
        and first.since < second.since
        and not re.search(r"\bthan\b|比", lower)
    ):
        first, second = second, first
    draft.period = first
    previous = first.kind == second.kind and second.until == first.since
    year = first.since is not None and second.since is not None and first.until is not None and second.until is not None and (
        times.months_later(first.since, -12), times.months_later(first.until, -12)) == (second.since, second.until)  # fmt: skip
    if (
        second.kind == "year"
        and first.kind != "year"
        and first.since
        and second.since
        and second.since.year == first.since.year - 1
    ):
        year = True
    if not previous and not year:
        raise _Stop(
            Unsure(
                note("two periods can be compared if one follows the other, or if they are a year apart"),
                _nearest(draft),
            )
        )
    draft.compare = "last-year" if year and not (previous and first.kind == "year") else "previous"


def _compare_with(draft: _Draft, period: Period) -> None:
    """Only the earlier period is named: "versus last month" compares this month with it."""
    assert period.since is not None or period.until is not None
    unit = period.kind
    if unit not in ("day", "week", "month", "quarter", "year") or period.until is None:
        raise _Stop(
            Unsure(
                note("two periods can be compared if one follows the other, or if they are a year apart"),
                _nearest(draft),
            )
        )
    current = times.unit_of(unit, draft.local)
    if period.until != current.since:
        raise _Stop(
            Unsure(
                note("two periods can be compared if one follows the other, or if they are a year apart"),
                _nearest(draft),
            )
        )
    draft.period, draft.compare = current, "previous"
    draft.doubts.append(note("read as the current period, compared with the one that is named"))


# --- putting it together


def _finished(draft: _Draft) -> Outcome:
    asks = [words()["asks"][n] for n in dict.fromkeys(draft.asks)]
    strong = [ask for ask in asks if not ask.get("weak")]
    if draft.metrics and strong:
        readings = [_metric_reading(draft), *(_ask_reading(ask, replace(draft, doubts=[])) for ask in strong[:2])]
        return Unsure(note("this asks for several things; choose one"), tuple(r for r in readings if r))
    if not draft.metrics and asks:
        return _asked(draft, strong or asks)
    if not draft.metrics and list(draft.where) == ["campaign"] and len(draft.where["campaign"]) == 1 and not draft.by:
        return _asked(draft, [ask for ask in words()["asks"] if ask["question"] == "campaign"])
    if not draft.metrics:
        return Unsure(
            note("no metric or question was recognised; name what you want to know, such as uses, discount or alerts"),
            _nearest(replace(draft, metrics=["used_events"])),
        )
    reading = _metric_reading(draft)
    others = tuple(_alternative(draft, [name]) for name in draft.others)
    if reading is None:
        return Unsure(note("this cannot be put together"))
    return Understood(reading, "likely" if draft.doubts else "sure", tuple(draft.doubts), others)


def _alternative(draft: _Draft, metrics: list[str]) -> Reading:
    reading = _metric_reading(replace(draft, metrics=metrics, others=[], doubts=[]))
    return reading or Reading("metrics", {"names": metrics}, ())


def _nearest(draft: _Draft) -> tuple[Reading, ...]:
    """What could be asked with what was understood."""
    try:
        if draft.metrics:
            reading = _metric_reading(replace(draft, doubts=[], by=list(draft.by), metrics=list(draft.metrics)))
            return (reading,) if reading else ()
        asks = [words()["asks"][n] for n in draft.asks]
        return tuple(_ask_reading(ask, replace(draft, doubts=[])) for ask in asks[:2])
    except _Stop as stop:
        return tuple(stop.outcome.alternatives)


def _zone_chip(draft: _Draft) -> Chip:
    return Chip("zone", draft.zone, note("time zone {zone}", zone=draft.zone))


def _metric_reading(draft: _Draft) -> Reading | None:
    names, by, where = list(dict.fromkeys(draft.metrics)), list(draft.by), dict(draft.where)
    names = _known_by(names, [*by, *where], draft)
    values: dict[str, Any] = {"names": names}
    chips = [Chip("metric", names, note("metric: {names:label}", names=names))]
    now = [name for name in names if METRICS[name].view == "now"]
    if now and len(now) < len(names):
        raise _Stop(
            Unsure(note("some of these metrics describe a period and others the current state; ask one at a time"))
        )
    if draft.compare == "target" and not {"campaign"} & {*by, *where}:
        by.append("campaign")
    if draft.compare == "target" and ({*by, *where} != {"campaign"} or draft.grain):
        raise _Stop(
            Refused(
                note("targets are set for a campaign as a whole; leave out other dimensions and periods of a series"),
                (),
            )
        )
    if by:
        values["by"] = by
        chips.append(Chip("by", by, note("by {dimensions:label}", dimensions=by)))
    if where:
        values["where"] = where
        chips += [
            Chip("where", {d: v}, note("only {dimension:label} {values}", dimension=d, values=v))
            for d, v in where.items()
        ]
    _add_time(draft, bool(now), names, values, chips)
    if draft.top and not by and not draft.grain:
        raise _Stop(
            Unsure(note("say of what the first {n:count} are wanted, such as campaigns or channels", n=draft.top))
        )
    order = _order(draft, names[0], bool(by or draft.grain), chips)
    return Reading("metrics", values, tuple(chips), names[0] if order else None, order != "asc", draft.top)


def _known_by(names: list[str], dimensions: list[str], draft: _Draft) -> list[str]:
    """The metrics, those replaced that are not known by one of the dimensions."""
    known = []
    for name in names:
        missing = [d for d in dimensions if d not in METRICS[name].dimensions]
        other = _SUBSTITUTES.get(name)
        if missing and other and all(d in METRICS[other].dimensions for d in dimensions):
            draft.doubts.append(
                note(
                    "{metric:label} is not known by {dimension:label}; read as {other:label}",
                    metric=name,
                    dimension=missing[0],
                    other=other,
                )
            )
            known.append(other)
        elif missing:
            allowed = [d for d in METRICS[name].dimensions if d not in ("weekday", "hour_of_day")]
            instead = Reading("metrics", {"names": [name]}, (_question_chip("metrics", {"names": [name]}),))
            raise _Stop(
                Refused(
                    note(
                        "{metric:label} is not known by {dimension:label}; it is by {dimensions:label}",
                        metric=name,
                        dimension=missing[0],
                        dimensions=allowed,
                    ),
                    (instead,),
                )
            )
        else:
            known.append(name)
    return list(dict.fromkeys(known))


def _add_time(draft: _Draft, now: bool, names: list[str], values: dict[str, Any], chips: list[Chip]) -> None:
    if now:
        if draft.compare or draft.grain:
            raise _Stop(
                Refused(
                    note(
                        "{metric:label} is a state of now and has no period; ask how it was at an instant",
                        metric=names[0],
                    )
                )
            )
        if draft.period:
            at, doubts = _as_of([draft.period], draft)
            values["at"] = at
            chips += [Chip("as_of", at, note("state as of {at:instant}", at=at)), _zone_chip(draft)]
            draft.doubts += doubts
        return
    if draft.period is None and (draft.compare in ("previous", "last-year") or names == ["claims_per_minute"]):
        draft.period = times.unit_of(draft.unit or ("month" if draft.compare else "day"), draft.local)
        draft.doubts.append(note("no period is named; the current one was taken"))
    period = draft.period
    zone = Zone(draft.zone)
    if period is None:
        chips.append(Chip("period", None, note("period: all time")))
    else:
        if period.kind in ("instant", "at"):
            draft.doubts.append(note("an instant was read as the hour that begins then"))
        since = zone.instant(period.since) if period.since else None
        until = zone.instant(period.until) if period.until else None
        values |= {name: at for name, at in (("since", since), ("until", until)) if at}
        chips.append(Chip("period", [since, until], _period_note(period)))
        if draft.compare in ("previous", "last-year") and period.until is not None and period.until > draft.local:
            draft.doubts.append(note("the period is not over, and is compared with a whole one"))
    if draft.grain:
        values["grain"] = draft.grain
        chips.append(Chip("grain", draft.grain, note("one row for each {grain:label}", grain=draft.grain)))
    if draft.compare:
        values["compare"] = draft.compare
        chips.append(Chip("compare", draft.compare, note(_COMPARED[draft.compare])))
    values["zone"] = draft.zone
    chips.append(_zone_chip(draft))


_COMPARED: Final = {
    "previous": "compared with the period before",
    "last-year": "compared with the same period last year",
    "target": "compared with the target",
}


def _period_note(period: Period) -> Note:
    since, until = (
        f"{at:%Y-%m-%d %H:%M}".removesuffix(" 00:00") if at else None for at in (period.since, period.until)
    )
    if since is None:
        return note("period: before {until}", until=until)
    return note("period: from {since} to before {until}", since=since, until=until)


def _order(draft: _Draft, first: str, several: bool, chips: list[Chip]) -> str | None:
    order = draft.order or ("desc" if draft.top else None)
    if order in ("best", "worst"):
        low = any(word in first for word in _LOW_IS_GOOD)
        order = "asc" if (order == "best") == low else "desc"
        if low:
            draft.doubts.append(note("a low {metric:label} was taken as good", metric=first))
    if not order or not several:
        return None
    sentence = (
        note("highest {metric:label} first", metric=first)
        if order == "desc"
        else note("lowest {metric:label} first", metric=first)
    )
    chips.append(Chip("order", order, sentence))
    if draft.top:
        chips.append(Chip("top", draft.top, note("the first {n:count}", n=draft.top)))
    return order


# --- other questions of the registry


def _asked(draft: _Draft, asks: list[Any]) -> Outcome:
    if len({ask["question"] for ask in asks}) > 1:
        return Unsure(
            note("this asks for several things; choose one"),
            tuple(_ask_reading(ask, replace(draft, doubts=[])) for ask in asks[:3]),
        )
    reading = _ask_reading(asks[-1], draft)
    return Understood(reading, "likely" if draft.doubts else "sure", tuple(draft.doubts))


def _ask_reading(ask: Any, draft: _Draft) -> Reading:
    name, values = ask["question"], dict(ask.get("given", {}))
    takes = QUESTIONS[name].parameters
    title = note(TITLES[name])
    chips = [Chip("question", name, note("question: {title}", title=title))]
    if ask.get("needs") == "campaign" and len(draft.where.get("campaign", [])) != 1:
        raise _Stop(Unsure(note("say which campaign is meant, by its name or id")))
    for dimension, found in draft.where.items():
        if name == "alerts" and dimension == "campaign" and len(found) == 1:
            values["key"] = f"campaign={found[0]}"
            chips.append(
                Chip(
                    "where",
                    {dimension: found},
                    note("only {dimension:label} {values}", dimension=dimension, values=found),
                )
            )
            continue
        if dimension not in takes or len(found) != 1:
            raise _Stop(
                Unsure(
                    note(
                        "{title} cannot be limited to {dimension:label} {values}",
                        title=title,
                        dimension=dimension,
                        values=found,
                    ),
                    (Reading(name, values, tuple(chips)),),
                )
            )
        values[dimension] = found[0]
        chips.append(
            Chip(
                "where", {dimension: found}, note("only {dimension:label} {values}", dimension=dimension, values=found)
            )
        )
    _add_groups(name, draft, values, chips)
    if name == "expiring":
        _add_ahead(ask, draft, values, chips)
    elif draft.period is not None:
        _add_period(name, draft, values, chips)
    if "zone" in takes:
        values["zone"] = draft.zone
    if draft.compare or (draft.grain and draft.grain != "day"):
        raise _Stop(
            Unsure(note("{title} has no comparison and no series", title=title), (Reading(name, values, tuple(chips)),))
        )
    return Reading(name, values, tuple(chips), None, True, draft.top)


_GROUPS: Final = {
    "finance-split": ("campaign", "coupon_type", "channel", "store", "region"),
    "finance-margin": ("channel", "store", "region"),
    "expiries": ("reason", "campaign", "channel"),
    "attribution": ("channel", "campaign"),
    "alert-groups": ("campaign",),
    "alerts": ("campaign",),
}


def _add_groups(name: str, draft: _Draft, values: dict[str, Any], chips: list[Chip]) -> None:
    by = [d for d in draft.by if not (name in ("campaigns", "experiments") and d == "campaign")]
    if not by:
        return
    if (
        any(d not in _GROUPS.get(name, ()) for d in by)
        or name == "alerts"
        or (name in ("attribution", "alert-groups") and len(by) > 1)
    ):
        raise _Stop(
            Unsure(
                note("{title} cannot be shown by {dimensions:label}", title=note(TITLES[name]), dimensions=by),
                (Reading(name, dict(values), tuple(chips)),),
            )
        )
    values["by"] = by[0] if name in ("attribution", "alert-groups") else [d.replace("_", "-") for d in by]
    chips.append(Chip("by", by, note("by {dimensions:label}", dimensions=by)))


def _add_ahead(ask: Any, draft: _Draft, values: dict[str, Any], chips: list[Chip]) -> None:
    period = draft.period
    if period is None:
        until = draft.local + ask["ahead"] * times.DAY
        draft.doubts.append(note("soon was read as within {n:count} days", n=ask["ahead"]))
    elif period.until is None or period.until <= draft.local or period.kind in ("since", "before"):
        raise _Stop(Unsure(note("coupons expire after the data's clock; name a time ahead, such as in 7 days")))
    else:
        until = period.until
        if period.since is not None and period.since > draft.local:
            draft.doubts.append(note("all coupons that expire until then are listed, from the data's clock on"))
    seconds = int((Zone(draft.zone).instant(until) - draft.clock).total_seconds())
    values["within_s"] = seconds
    chips.append(Chip("period", seconds, note("until {until}", until=f"{until:%Y-%m-%d %H:%M}")))


def _add_period(name: str, draft: _Draft, values: dict[str, Any], chips: list[Chip]) -> None:
    takes, period = QUESTIONS[name].parameters, draft.period
    assert period is not None
    zone = Zone(draft.zone)
    if "since" in takes and "until" in takes:
        since = zone.instant(period.since) if period.since else None
        until = zone.instant(period.until) if period.until else None
        values |= {n: at for n, at in (("since", since), ("until", until)) if at}
        chips += [Chip("period", [since, until], _period_note(period)), _zone_chip(draft)]
    elif "at" in takes:
        at, doubts = _as_of([period], draft)
        values["at"] = at
        draft.doubts += doubts
        chips += [Chip("as_of", at, note("state as of {at:instant}", at=at)), _zone_chip(draft)]
    else:
        raise _Stop(
            Unsure(
                note("{title} has no period", title=note(TITLES[name])), (Reading(name, dict(values), tuple(chips)),)
            )
        )


__all__ = ["REASONS", "TITLES", "understand"]
