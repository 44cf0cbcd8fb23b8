# ruff: noqa: E501 - the patterns below are a table, one line each
"""Times in plain words: "last week", "双十一", "between 5 and 9 pm on 11 Nov". Relative times count from the data's
clock.

All instants here are local, in the reader's zone, without a zone of their own. A period ends before `until`. Weeks
begin on Monday. A month or day without a year is the latest that has begun.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Period:
    """A period that a text names. `kind`: its unit, such as day, week or clock. `start`, `end`: its place in the text.
    `doubt`: whether people could mean another period by these words. `future`: whether it lies ahead by its words."""

    since: datetime | None
    until: datetime | None
    kind: str
    start: int = 0
    end: int = 0
    doubt: bool = False
    future: bool = False


_MONTHS: Final = (
    "jan(?:uary)?", "feb(?:ruary)?", "mar(?:ch)?", "apr(?:il)?", "may", "june?", "july?", "aug(?:ust)?",
    "sept?(?:ember)?", "oct(?:ober)?", "nov(?:ember)?", "dec(?:ember)?",
)  # fmt: skip
_WEEKDAYS: Final = ("mon(?:day)?", "tue(?:s|sday)?", "wed(?:nesday)?", "thu(?:rs|rsday)?", "fri(?:day)?",
                    "sat(?:urday)?", "sun(?:day)?")  # fmt: skip
_DIGITS: Final = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0, "日": 7, "天": 7}
_WORDS: Final = {
    w: n for n, w in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
} | {"a": 1, "an": 1, "couple of": 2}
NUMBER: Final = r"\d{1,4}|[一二两三四五六七八九十]{1,3}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_M: Final = "|".join(_MONTHS)
_W: Final = "|".join(_WEEKDAYS)
_UNITS: Final = {
    "hour": "hour", "hr": "hour", "小时": "hour", "个小时": "hour", "day": "day", "天": "day", "日": "day", "week": "week",
    "周": "week", "星期": "week", "个星期": "week", "个周": "week", "month": "month", "个月": "month", "月": "month",
    "minute": "minute", "min": "minute", "分钟": "minute", "year": "year", "年": "year", "quarter": "quarter",
    "季度": "quarter", "个季度": "quarter", "weekend": "weekend", "周末": "weekend",
}  # fmt: skip


def number(text: str) -> int:
    """A number in digits, English words up to twelve, or Chinese characters below a hundred."""
    if text.isdecimal():
        return int(text)
    if text in _WORDS:
        return _WORDS[text]
    tens, ten, ones = text.rpartition("十")
    if not ten:
        return _DIGITS.get(text[-1:], 0)
    return 10 * (_DIGITS.get(tens, 1) if tens else 1) + (_DIGITS.get(ones, 0) if ones else 0)


def periods(text: str, clock: datetime) -> list[Period]:
    """The periods that a folded text names, in their order. `clock`: the data's clock as local time."""
    found: list[Period] = []
    masked = text
    for pattern, make in _PATTERNS:
        for match in pattern.finditer(masked):
            try:
                period = make(match, clock)
            except (ValueError, OverflowError):
                continue
            if period is not None:
                found.append(replace(period, start=match.start(), end=match.end()))
        masked = _masked(masked, found)
    joined = _joined(text, sorted(found, key=lambda p: p.start), clock)
    return _bounded(text, joined, clock)


def _masked(text: str, found: Iterable[Period]) -> str:
    characters = list(text)
    for period in found:
        characters[period.start : period.end] = "\0" * (period.end - period.start)
    return "".join(characters)


def today(clock: datetime) -> datetime:
    return datetime(clock.year, clock.month, clock.day)


def months_later(day: datetime, count: int) -> datetime:
    year, month = divmod(12 * day.year + day.month - 1 + count, 12)
    return day.replace(year=year, month=month + 1, day=min(day.day, monthrange(year, month + 1)[1]))


def starting(unit: str, at: datetime) -> datetime:
    """The start of the hour, day, week, month, quarter or year that contains `at`."""
    if unit == "minute":
        return at.replace(second=0, microsecond=0)
    if unit == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    day = today(at)
    if unit == "week":
        return day - day.weekday() * DAY
    if unit == "weekend":
        return day - day.weekday() * DAY + 5 * DAY
    if unit == "month":
        return day.replace(day=1)
    if unit == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(month=1, day=1) if unit == "year" else day


def moved(unit: str, at: datetime, count: int) -> datetime:
    if unit in ("month", "quarter", "year"):
        return months_later(at, count * {"month": 1, "quarter": 3, "year": 12}[unit])
    lengths = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": DAY, "week": WEEK, "weekend": WEEK}
    return at + count * lengths[unit]


def unit_of(unit: str, at: datetime, kind: str | None = None) -> Period:
    since = starting(unit, at)
    until = since + 2 * DAY if unit == "weekend" else moved(unit, since, 1)
    return Period(since, until, kind or unit)


def _unit(word: str) -> str:
    return _UNITS.get(word) or _UNITS[word.rstrip("s")]


def _date(year: int, month: int, day: int) -> Period:
    return unit_of("day", datetime(year, month, day))


def _latest(clock: datetime, month: int, day: int | None = None, years: int | None = None) -> Period:
    """That month, or day of a month, in the latest year in which it has begun; `years` later than this one if given."""
    for year in (clock.year, clock.year - 1) if years is None else (clock.year + years,):
        start = datetime(year, month, day or 1)
        if start <= clock or years is not None:
            return unit_of("day" if day else "month", start)
    raise ValueError


def _month(name: str) -> int:
    return next(n for n, month in enumerate(_MONTHS, 1) if re.fullmatch(month, name))


def _weekday(name: str) -> int:
    if name in _DIGITS:
        return _DIGITS[name] - 1
    return next(n for n, day in enumerate(_WEEKDAYS) if re.fullmatch(day, name))


def _ago_years(match: re.Match[str]) -> int | None:
    said = match.groupdict().get("years") or match.groupdict().get("after")
    if not said:
        return None
    if said.strip()[-4:].isdecimal():
        return None
    return {"去年": -1, "今年": 0, "本年": 0, "前年": -2, "last year": -1, "this year": 0}[
        said.strip(" ,").removeprefix("of ")
    ]


def _month_and_day(match: re.Match[str], clock: datetime) -> Period:
    groups = match.groupdict()
    month = (
        _month(groups["month"])
        if groups["month"][0].isalpha() and groups["month"].isascii()
        else number(groups["month"])
    )
    day = number(groups["day"]) if groups.get("day") else None
    if groups.get("year"):
        start = datetime(int(groups["year"]), month, day or 1)
        return unit_of("day" if day else "month", start)
    return _latest(clock, month, day, _ago_years(match))


def _last(match: re.Match[str], clock: datetime) -> Period:
    """The last N units. Days, weeks and months include the current day; hours and minutes end at the clock."""
    count, unit = number(match["n"] or "1"), _unit(match["unit"])
    if unit in ("hour", "minute"):
        until = clock.replace(microsecond=0) + timedelta(seconds=1)
        return Period(moved(unit, until, -count), until, "range")
    until = today(clock) + DAY
    return Period(moved(unit, until, -count), until, "range", doubt=unit not in ("day", "week") and count < 3)


def _next(match: re.Match[str], clock: datetime) -> Period:
    count, unit = number(match["n"] or "1"), _unit(match["unit"])
    return Period(clock, moved(unit, clock, count), "range", future=True)


def _relative(match: re.Match[str], clock: datetime) -> Period:
    """This, last or next unit of the calendar."""
    which, unit = match["which"].replace(" ", ""), _unit(match["unit"])
    count = {"this": 0, "本": 0, "这": 0, "这个": 0, "当": 0, "今": 0, "current": 0, "本个": 0, "the": 0,
             "last": -1, "previous": -1, "上": -1, "上个": -1, "上一": -1, "上一个": -1, "去": -1, "prior": -1, "past": -1,
             "上上": -2, "上上个": -2, "前": -2, "next": 1, "下": 1, "下个": 1, "下一": 1, "明": 1, "coming": 1}[which]  # fmt: skip
    if unit == "weekend" and count == 0 and clock.weekday() < 5:
        return replace(unit_of(unit, clock), future=True)
    if unit == "weekend" and count == -1 and clock.weekday() >= 5:
        return replace(unit_of(unit, clock - WEEK), doubt=True)
    return replace(unit_of(unit, moved(unit, starting(unit, clock), count)), future=count > 0)


def _before_last(match: re.Match[str], clock: datetime) -> Period:
    unit = _unit(match["unit"])
    return unit_of(unit, moved(unit, starting(unit, clock), -2))


def _so_far(match: re.Match[str], clock: datetime) -> Period:
    unit = _unit(match["unit"])
    return Period(starting(unit, clock), today(clock) + DAY, "range" if unit != "day" else "day")


def _day(count: int) -> Callable[[re.Match[str], datetime], Period]:
    return lambda _, clock: replace(unit_of("day", clock + count * DAY), future=count > 0)


def _ago(match: re.Match[str], clock: datetime) -> Period:
    count, unit = number(match["n"]), _unit(match["unit"])
    if unit in ("hour", "minute"):
        return replace(unit_of(unit, moved(unit, clock, -count)), doubt=True)
    return unit_of(unit, moved(unit, starting(unit, clock), -count))


def _on_weekday(match: re.Match[str], clock: datetime) -> Period:
    which, weekday = (match["which"] or "").strip(), _weekday(match["day"])
    monday = starting("week", clock)
    if which in ("上", "上个"):
        return unit_of("day", monday - WEEK + weekday * DAY)
    if which in ("next", "下", "下个"):
        return replace(unit_of("day", monday + WEEK + weekday * DAY), future=True)
    if which in ("this", "本", "这", "这个"):
        return unit_of("day", monday + weekday * DAY)
    latest = today(clock) - (clock.weekday() - weekday) % 7 * DAY
    if which == "last" and latest == today(clock):
        latest -= WEEK
    return replace(unit_of("day", latest), doubt=which == "last" and latest >= monday)


def _quarter(match: re.Match[str], clock: datetime) -> Period:
    groups = match.groupdict()
    quarter = number(groups["q"])
    if not 1 <= quarter <= 4:
        raise ValueError
    year = int(groups["year"]) if groups.get("year") else clock.year + (_ago_years(match) or 0)
    start = datetime(year, 3 * quarter - 2, 1)
    if not groups.get("year") and start > clock and _ago_years(match) is None:
        start = start.replace(year=year - 1)
    return unit_of("quarter", start)


def _feast(month: int, day: int) -> Callable[[re.Match[str], datetime], Period]:
    def made(match: re.Match[str], clock: datetime) -> Period:
        year = match.groupdict().get("year")
        if year:
            return _date(int(year), month, day)
        return _latest(clock, month, day, _ago_years(match))

    return made


def _black_friday(match: re.Match[str], clock: datetime) -> Period:
    year = int(match["year"]) if match.groupdict().get("year") else clock.year
    for tried in (year, year - 1):
        first = datetime(tried, 11, 1)
        day = first + ((3 - first.weekday()) % 7 + 22) * DAY
        if day <= clock:
            return unit_of("day", day)
    raise ValueError


def _half(match: re.Match[str], clock: datetime) -> Period:
    first = match[0].startswith(("上", "first"))
    start = datetime(clock.year, 1 if first else 7, 1)
    start = start if start <= clock else start.replace(year=start.year - 1)
    return Period(start, months_later(start, 6), "range")


# --- clock times

_PM: Final = ("pm", "p.m.", "下午", "晚上", "傍晚", "晚", "今晚", "昨晚")


def _clock_time(hour: str, minute: str | None, half: str | None) -> timedelta:
    value = number(hour)
    half = (half or "").strip()
    if half in _PM and value < 12:
        value += 12
    if half in ("am", "a.m.", "凌晨", "早上", "上午") and value == 12:
        value = 0
    minutes = 30 if minute == "半" else int(minute or 0)
    if value > 24 or minutes > 59:
        raise ValueError
    return timedelta(hours=value, minutes=minutes)


def _clock_range(match: re.Match[str], clock: datetime) -> Period | None:
    g = match.groupdict()
    if not any(g.get(name) for name in ("m1", "m2", "h1", "h2", "half")):
        return None
    first_half = g.get("h1") or g.get("half1") or g.get("h2") or g.get("half")
    since = _clock_time(g["a"], g.get("m1"), first_half)
    until = _clock_time(g["b"], g.get("m2"), g.get("h2") or g.get("half2") or g.get("half1") or g.get("half"))
    if since >= until and not g.get("h1") and until > timedelta(hours=12):
        since = _clock_time(g["a"], g.get("m1"), "am")
    if since >= until:
        raise ValueError
    return Period(today(clock) + since, today(clock) + until, "clock")


def _clock_at(match: re.Match[str], clock: datetime) -> Period:
    g = match.groupdict()
    at = today(clock) + _clock_time(g["a"], g.get("m1"), g.get("h1") or g.get("half1"))
    return Period(at, at + timedelta(hours=1), "at")


def _iso_instant(match: re.Match[str], clock: datetime) -> Period:
    at = datetime(int(match["y"]), int(match["mo"]), int(match["d"]), int(match["h"]), int(match["mi"]))
    return Period(at, at + timedelta(hours=1), "instant")


def _zh_range(match: re.Match[str], clock: datetime) -> Period:
    first = match["half1"]
    since = _clock_time(match["a"], match["m1"], first)
    until = _clock_time(match["b"], match["m2"], match["half2"] or first)
    if since >= until:
        raise ValueError
    return Period(today(clock) + since, today(clock) + until, "clock")


def _relative_zh(match: re.Match[str], clock: datetime) -> Period:
    unit = {"季": "quarter", "礼拜": "week"}.get(match["unit"]) or _unit(match["unit"])
    count = {"上上": -2, "上": -1, "本": 0, "这": 0, "下": 1}[match["which"].replace("个", "").replace("一", "")]
    if unit == "weekend" and count == 0 and clock.weekday() < 5:
        return replace(unit_of(unit, clock), future=True)
    return replace(unit_of(unit, moved(unit, starting(unit, clock), count)), future=count > 0)


def _english_weekday(match: re.Match[str], clock: datetime) -> Period | None:
    if match["day"] in ("sun", "sat", "mon", "wed") and not match["which"]:
        return None
    return _on_weekday(match, clock)


def _quarter_either(match: re.Match[str], clock: datetime) -> Period:
    quarter = number(match["q"] or match["zq"])
    years = _ago_years(match)
    start = datetime(clock.year + (years or 0), 3 * quarter - 2, 1)
    if years is None and start > clock:
        start = start.replace(year=start.year - 1)
    return unit_of("quarter", start)


_LEADING: Final = re.compile(
    r"\b(?:in|during|for|of|since|until|till|from|to|and|vs|versus|before|after|month|than|year|between|over|all)(?: the)? $"
)


def _lone_month(match: re.Match[str], clock: datetime) -> Period | None:
    """A month's name by itself. "May", "march" and short forms are words of their own, so they need a preposition."""
    short = len(match["month"]) <= 3 or match["month"] == "march"
    if short and not _LEADING.search(match.string[: match.start()]):
        return None
    return _month_and_day(match, clock)


def _lone_year(match: re.Match[str]) -> Period | None:
    before = match.string[: match.start()]
    if before.strip() and not _LEADING.search(before) and match.end() < len(match.string.rstrip(" ?.!")):
        return None
    return unit_of("year", datetime(int(match["year"]), 1, 1))


def _to_date(match: re.Match[str], clock: datetime) -> Period:
    groups = match.groupdict()
    short = {"y": "year", "m": "month", "w": "week", "q": "quarter"}.get(groups.get("short") or "")
    unit = groups.get("unit") or short or "day"
    return Period(starting(unit, clock), today(clock) + DAY, "range" if unit != "day" else "day")


def _hours(count: int, clock: datetime) -> Period:
    until = clock.replace(microsecond=0) + timedelta(seconds=1)
    return Period(until - timedelta(hours=count), until, "range")


def _part(clock: datetime, days: int, first: int, last: int) -> Period:
    day = today(clock) + days * DAY
    return Period(day + timedelta(hours=first), day + timedelta(hours=last), "range", doubt=True)


_YEAR: Final = r"(?P<year>(?:19|20)\d\d)"
_YEARS: Final = r"(?P<years>去年|今年|本年|前年)?"
_AFTER: Final = r"(?P<after>,? ?(?:of )?(?:last year|this year))?"
_LAST_WORDS: Final = r"(?:last|past|previous|recent|trailing|most recent|最近|近|过去|前)"
_ZH_HALF: Final = r"(?P<half1>凌晨|早上|上午|中午|下午|傍晚|晚上|晚)?"
_PATTERN_TEXTS: Final[tuple[tuple[str, Callable[[re.Match[str], datetime], Period | None]], ...]] = (
    (r"\b(?P<y>(?:19|20)\d\d)-(?P<mo>\d\d)-(?P<d>\d\d)[t ](?P<h>\d\d):(?P<mi>\d\d)(?::\d\d)?\b", _iso_instant),
    (rf"(?<!\d){_YEAR}[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}})(?!\d)", _month_and_day),
    (rf"(?<!\d){_YEAR}年(?P<month>\d{{1,2}})月(?P<day>\d{{1,2}})[日号]?", _month_and_day),
    (rf"(?<!\d){_YEAR}[-/](?P<month>\d{{1,2}})(?!\d)", _month_and_day),
    (rf"(?<!\d){_YEAR}年(?P<month>\d{{1,2}})月份?", _month_and_day),
    (rf"(?<!\d){_YEAR}年?(?:的)?q(?P<q>[1-4])\b|\bq(?P<q2>[1-4])[ ,/-]*{_YEAR.replace('year', 'year2')}\b",
     lambda m, c: unit_of("quarter", datetime(int(m["year"] or m["year2"]), 3 * int(m["q"] or m["q2"]) - 2, 1))),
    (rf"(?<!\d){_YEAR}年?(?:第)?(?P<q>[一二三四1-4])季度", _quarter),
    (rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month>{_M})\.?,? {_YEAR}\b", _month_and_day),
    (rf"\b(?P<month>{_M})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? {_YEAR}\b", _month_and_day),
    (rf"\b(?P<month>{_M})\.?,? {_YEAR}\b", _month_and_day),
    (rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month>{_M})\b{_AFTER}", _month_and_day),
    (rf"\b(?P<month>{_M})\.? (?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?! ?[ap]m|:){_AFTER}", _month_and_day),
    (rf"{_YEARS}的?(?<!\d)(?P<month>1[0-2]|[1-9]|十[一二]?|[一二三四五六七八九])月(?P<day>\d{{1,2}}|[一二三四五六七八九十]{{1,3}})[日号]?",
     _month_and_day),
    (r"(?:the )?day before yesterday|前天", _day(-2)),
    (r"大前天", _day(-3)),
    (r"(?:the )?day after tomorrow|后天", _day(2)),
    (rf"\bq(?P<q>[1-4])\b{_AFTER}|{_YEARS}第?(?P<zq>[一二三四])季度",
     _quarter_either),
    (r"(?:first half of (?:the|this) year|上半年)", _half),
    (r"(?:second half of (?:the|this) year|下半年)", _half),
    (rf"(?:{_YEAR}年?|{_YEARS})的?(?:双十一|双11|双 ?11|\b11\.11\b|double (?:11|eleven)\b|singles'? ?day\b|single's day\b)"
     , _feast(11, 11)),
    (rf"(?:{_YEAR}年?|{_YEARS})的?(?:双十二|双12|double (?:12|twelve)\b|\b12\.12\b)", _feast(12, 12)),
    (rf"\bblack friday\b(?: {_YEAR})?|黑色星期五|黑五", _black_friday),
    (rf"(?:{_YEARS})(?:\bchristmas day\b|圣诞节)", _feast(12, 25)),
    (rf"(?:{_YEARS})(?:\bnew year'?s day\b|元旦)", _feast(1, 1)),
    (rf"(?:{_YEARS})(?:\bvalentine'?s day\b|情人节)", _feast(2, 14)),
    (r"\b(?P<unit>year|month|week|quarter)[ -]to[ -]date\b|\b(?P<short>[ymwq])td\b",
     _to_date),
    (r"\b(?:so far )?(?:this|the) (?P<unit>week|month|quarter|year|day)(?: so far| until now| up to now)\b", _so_far),
    (r"\bso far (?:this|the) (?P<unit>week|month|quarter|year)\b|\b(?P<unit2>today) so far\b|\bso far today\b",
     _to_date),
    (r"(?:本|这|这个|今)(?P<unit>周|月|季度|年|天)(?:到目前为止|截至目前|至今|到现在|目前为止|截止目前)", _so_far),
    (r"\bthe (?P<unit>week|month|quarter|year) before last\b", _before_last),
    (rf"\b(?:in |within |for |over |during )?(?:the )?{_LAST_WORDS} (?P<n>{NUMBER}|couple of) (?P<unit>hours?|hrs?|days?|weeks?|months?|minutes?|mins?|quarters?|years?)\b",
     _last),
    (rf"(?:最近|近|过去|前|这|之前|过去的|最近的)(?P<n>{NUMBER})(?P<unit>天|日|周|个星期|星期|个月|小时|个小时|分钟|年)(?:内|里|以来)?", _last),
    (r"\b(?:in |over |during |within )?(?:the )?(?:last|past) (?P<n>24|48|72)h\b()?(?P<unit>)?", lambda m, c: _hours(int(m["n"]), c)),
    (r"(?:最近|过去|近)(?P<n>)(?P<unit>一年)", lambda m, c: None),
    (r"\b(?:the )?(?:last|past) (?P<n>)(?P<unit>hour)\b|(?:最近|过去|近)一(?:个)?小时", lambda m, c: _hours(1, c)),
    (rf"\b(?:in|within|over|during) (?:the )?(?:next|coming) (?P<n>{NUMBER}) (?P<unit>hours?|days?|weeks?|months?)\b", _next),
    (rf"\b(?:the )?(?:next|coming) (?P<n>{NUMBER}) (?P<unit>hours?|days?|weeks?|months?)\b", _next),
    (rf"(?:未来|今后|接下来|往后)(?:的)?(?P<n>{NUMBER})(?P<unit>天|日|周|个月|小时|个小时)(?:内|里)?", _next),
    (rf"\b(?P<n>{NUMBER}) (?P<unit>hours?|days?|weeks?|months?|years?|minutes?) ago\b", _ago),
    (rf"(?P<n>{NUMBER})(?P<unit>天|日|周|个星期|个月|小时|个小时|年|分钟)(?:以)?前", _ago),
    (rf"\b(?:in|within) (?P<n>{NUMBER}) (?P<unit>hours?|days?|weeks?|months?)\b",
     lambda m, c: replace(_next(m, c), kind="ahead")),
    (rf"(?P<n>{NUMBER})(?P<unit>天|日|周|个月|小时|个小时)(?:之内|以内|内|后)", lambda m, c: replace(_next(m, c), kind="ahead")),
    (r"(?P<which>上上个|上上|上一个|上一|上个|上|本|这个|这|下一|下个|下)(?P<unit>周末|周|星期|月|季度|季|礼拜)(?![一二三四五六日天])",
     _relative_zh),
    (r"(?P<which>上上个|上上|上个|上|本|这个|这|下个|下)?(?:周|星期|礼拜)(?P<day>[一二三四五六日天])(?!年|期)", _on_weekday),
    (rf"{_YEARS}的?(?<!\d)(?P<month>1[0-2]|[1-9]|十[一二]?|[一二三四五六七八九])月份?(?!\d)", _month_and_day),
    (r"(?P<which>今|本|去|前|明|上一|当)(?P<unit>年)度?", _relative),
    (r"(?P<which>当|本)(?P<unit>月|周|季度)", _relative),
    (r"\b(?:in |during )?(?P<which>this|last|next|previous|prior|current|coming) (?P<unit>weekend|week|month|quarter|year)\b(?!s)", _relative),
    (r"\b(?:the )(?P<which>previous|current|past) (?P<unit>week|month|quarter|year|day)\b", _relative),
    (r"\b(?:the )?past (?P<n>)(?P<unit>week|month|quarter|year)\b",
     lambda m, c: replace(_last(m, c), doubt=True)),
    (rf"\b(?P<which>this |last |next |on )?(?P<day>{_W})\b(?!s)", _english_weekday),
    (rf"\blast (?P<month>{_M})\b", lambda m, c: replace(_latest(c, _month(m["month"])),
                                                       doubt=c.month >= _month(m["month"]))),
    (rf"\b(?P<month>{_M})\b{_AFTER}", _lone_month),
    (r"\byesterday (?:evening|night)\b|昨晚|昨天晚上(?!\d|[一二三四五六七八九十])", lambda m, c: _part(c, -1, 18, 24)),
    (r"\btonight\b|\bthis evening\b|今晚(?!\d)|今天晚上(?!\d)", lambda m, c: _part(c, 0, 18, 24)),
    (r"\bthis morning\b|今天上午(?!\d)|今早", lambda m, c: _part(c, 0, 6, 12)),
    (r"\byesterday\b|昨天|昨日", _day(-1)),
    (r"\btoday\b|今天|今日", _day(0)),
    (r"\btomorrow\b|明天|明日", _day(1)),
    (rf"(?<!\d){_YEAR}年(?:全年|度)?", lambda m, c: unit_of("year", datetime(int(m["year"]), 1, 1))),
    (rf"\b{_YEAR}\b(?! ?[a-z%¥$€])", lambda m, c: _lone_year(m)),
    (r"\b(?:between |from )(?P<a>\d{1,2})(?::(?P<m1>\d\d))? ?(?P<h1>[ap]m)? ?(?:and|to|-|until|till) ?(?P<b>\d{1,2})(?::(?P<m2>\d\d))? ?(?P<h2>[ap]m)?\b",
     _clock_range),
    (r"(?<![\d-])(?P<a>\d{1,2})(?::(?P<m1>\d\d))? ?(?P<h1>[ap]m)? ?(?:to|-|~|until|till) ?(?P<b>\d{1,2})(?::(?P<m2>\d\d))? ?(?P<h2>[ap]m)?\b(?!-)",
     _clock_range),
    (rf"{_ZH_HALF}(?P<a>\d{{1,2}}|[一二两三四五六七八九十]{{1,3}})(?:点|时|:(?P<m1>\d\d))(?:到|至|-|~|和)(?P<half2>凌晨|早上|上午|中午|下午|傍晚|晚上|晚)?(?P<b>\d{{1,2}}|[一二两三四五六七八九十]{{1,3}})(?:点|时|:(?P<m2>\d\d))(?:之间)?(?P<half>)",
     _zh_range),
    (rf"{_ZH_HALF}(?P<a>\d{{1,2}}|[一二两三四五六七八九十]{{1,3}})(?:点|时)(?!间|段)(?P<m1>半|\d\d)?(?:分|整|钟)?", _clock_at),
    (r"\b(?:at |around )?(?P<a>\d{1,2}):(?P<m1>\d\d) ?(?P<h1>[ap]m)?\b", _clock_at),
    (r"\b(?:at |around )?(?P<a>\d{1,2}) ?(?P<h1>[ap]m)\b", _clock_at),
    (r"\b(?:at )(?P<a>noon|midnight)\b", lambda m, c: Period(today(c) + timedelta(hours=12 * (m["a"] == "noon")), today(c) + timedelta(hours=1 + 12 * (m["a"] == "noon")), "at")),
)  # fmt: skip

_PATTERNS: Final = [(re.compile(text), make) for text, make in _PATTERN_TEXTS]

_BETWEEN: Final = re.compile(r" ?(?:to|and|until|till|through|-|~|到|至|和|与) ?(?:the )?")
_OPENING: Final = re.compile(r"(?:\b(?:from|between)|从|自) ?(?:the )?$")
_CLOSING: Final = re.compile(r" ?(?:之间|期间|为止|当天|当日|那天|全天|这天|那周|当周|全月|整月)?")


def _joined(text: str, found: list[Period], clock: datetime) -> list[Period]:
    """Join clock times with their day, and two days with their range."""
    return _ranges(text, _with_clock(text, found))


def _with_clock(text: str, found: list[Period]) -> list[Period]:
    clocks = [p for p in found if p.kind in ("clock", "at")]
    days = [p for p in found if p.kind == "day"]
    if (
        len(clocks) == 2
        and all(p.kind == "at" for p in clocks)
        and _BETWEEN.fullmatch(text[clocks[0].end : clocks[1].start])
    ):
        first, second = clocks
        if first.since is not None and second.since is not None and first.since < second.since:
            joined = replace(first, until=second.since, end=second.end, kind="clock")
            found = [joined if p is first else p for p in found if p is not second]
            clocks = [joined]
    if len(clocks) != 1 or len(days) > 1:
        return found
    [timed] = clocks
    if not days:
        return found
    [day] = days
    if not re.fullmatch(
        r"(?:[ ,的]|on|at|in|the|from|between)*", text[min(day.end, timed.end) : max(day.start, timed.start)]
    ):
        return found
    assert day.since is not None and timed.since is not None and timed.until is not None
    base = today(timed.since)
    since = day.since + (timed.since - base)
    kind = "instant" if timed.kind == "at" else "range"
    both = Period(
        since,
        day.since + (timed.until - base),
        kind,
        min(day.start, timed.start),
        max(day.end, timed.end),
        day.doubt,
        day.future,
    )
    return [both if p is day else p for p in found if p is not timed]


def _ranges(text: str, found: list[Period]) -> list[Period]:
    result: list[Period] = []
    for period in found:
        before = result[-1] if result else None
        between = text[before.end : period.start] if before else ""
        if before and before.kind not in ("clock", "at") and _BETWEEN.fullmatch(between) and before.since and period.until \
                and before.since < period.until and (between.strip() not in ("and", "和", "与", "-") or _OPENING.search(text[: before.start]) or between.strip() == "-"):  # fmt: skip
            opening = _OPENING.search(text[: before.start])
            until = period.since if period.kind == "instant" else period.until
            result[-1] = Period(before.since, until, "range", opening.start() if opening else before.start, period.end,
                                before.doubt or period.doubt)  # fmt: skip
        else:
            result.append(period)
    return result


_SINCE: Final = re.compile(r"(?:\b(?:since|starting(?: from)?|from)(?: the)?|自从|自|从) ?$")
_AFTER_WORD: Final = re.compile(r"(?:\bafter(?: the)?) ?$")
_UNTIL: Final = re.compile(r"(?:\b(?:until|till|up to|through|as of|by the end of)(?: the)?|截至|截止到?|到) ?$")
_BEFORE: Final = re.compile(r"(?:\bbefore(?: the)?) ?$")
_SINCE_AFTER: Final = re.compile(r" ?(?:onwards?|to now|until now|以来|起|开始|至今|到现在|到今天)")
_BEFORE_AFTER: Final = re.compile(r"(?:之前|以前)")
_AFTER_AFTER: Final = re.compile(r"(?:之后|以后)")


def _bounded(text: str, found: list[Period], clock: datetime) -> list[Period]:
    """Apply words such as since, until, before and after to the periods."""
    result = []
    for period in found:
        head, tail = text[: period.start], text[period.end :]
        start, end = period.start, period.end
        if period.kind == "range" and (opening := re.search(r"(?:\b(?:between|from)|从) ?$", head)):
            result.append(replace(period, start=opening.start()))
            continue
        if (mark := _SINCE.search(head)) or _SINCE_AFTER.match(tail):
            after = _SINCE_AFTER.match(tail)
            start, end = mark.start() if mark else start, end + (after.end() if after else 0)
            period = Period(period.since, today(clock) + DAY, "since", start, end, period.doubt)
        elif mark := _BEFORE.search(head) or None:
            period = Period(None, period.since, "before", mark.start(), end, period.doubt)
        elif after := _BEFORE_AFTER.match(tail):
            period = Period(None, period.since, "before", start, end + after.end(), period.doubt)
        elif (mark := _AFTER_WORD.search(head)) or _AFTER_AFTER.match(tail):
            after = _AFTER_AFTER.match(tail)
            since = period.since if period.kind == "instant" else period.until
            period = Period(
                since,
                today(clock) + DAY,
                "since",
                mark.start() if mark else start,
                end + (after.end() if after else 0),
                period.doubt or period.kind not in ("instant",),
            )
        elif mark := _UNTIL.search(head) or None:
            period = Period(
                None,
                period.since if period.kind == "instant" else period.until,
                "until",
                mark.start(),
                end,
                period.doubt,
            )
        elif closing := _CLOSING.match(tail):
            period = replace(period, end=end + closing.end())
        result.append(period)
    return result
