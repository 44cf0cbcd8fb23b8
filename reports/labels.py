"""How columns and values are shown to people: names in the reader's language, and numbers with their units.

The names are in `ledger/labels.toml`; the names of metrics are in `questions/metrics/metrics.toml`. The format of a
value depends on its kind (money, share, count, instant, …), and the kind on the column or on the metric in the row.
Formats for machines (JSON, CSV) have the columns and values unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.ledger import labels
from coupon_ledger.ledger.amounts import NOTHING, amount, count, percent, percent_of_bp
from coupon_ledger.ledger.labels import Field, Label
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.words import Note, Speaker
from coupon_ledger.reports.text import Row, printable
from coupon_ledger.reports.view import view

if TYPE_CHECKING:
    from coupon_ledger.questions.metrics.definitions import Metric


SAY_NOTHING: Final = frozenset(
    "acquisition_minor media_minor operation_minor subsidy_minor orders_by_rate lines_without_cost orders_without_cost"
    " without_cost superseded explained provisional coupon_orders_without_goods_cost without_value open"
    " cancelled_minor".split()
)
"""Columns that tables for people leave out if all their values are zero."""

_UNITS: Final = {"ratio": "share", "minor": "money", "seconds": "seconds", "minutes": "number"}
"""The kind of a metric's values, by its unit; `count` for the others."""


@cache
def _metrics() -> Mapping[str, Metric]:
    """The definitions of all metrics. They are loaded when first needed, so that commands without tables start
    faster."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    return METRICS


def _field(column: str) -> Field | None:
    return labels.fields().get(column)


def _in_language(text: Label) -> str:
    return text.zh if view().chinese else text.en


def named(column: str) -> Label | None:
    """The name of a column in all languages; None for unknown columns. The column is looked up among the fields, then
    among the codes, then among the metrics. The name of a column with a suffix, such as `orders_target`, is the name of
    the column without the suffix, followed by words for the suffix."""
    if (field := _field(column)) is not None:
        return field.label
    if (code := labels.of_code(column)) is not None:
        return code
    if column in _metrics():
        return _metrics()[column].label
    for suffix, after in labels.section("suffixes").items():
        base = named(column.removesuffix(suffix)) if column.endswith(suffix) else None
        if base is not None:
            return Label(base.en + after.en, base.zh + after.zh)
    return None


def label(column: str) -> str:
    """The name of a column in the reader's language. If the name contains a space, as in `issued_coupons app`, the
    second part is a code: the column has only the values for this code."""
    column, _, of = column.partition(" ")
    if of:
        return f"{label(column)} {word(of)}"
    if column[:1] == "+":
        return column
    known = named(column)
    return labels.in_words(column) if known is None else _in_language(known)


def label_of_metric(name: str) -> str:
    """The name of a metric in the reader's language. The metric can also be one that only experiments have."""
    return label(labels.experiment_metrics().get(name, name))


def label_of_texts(column: str) -> str:
    """The name, in the reader's language, of a column whose values are texts or lists. Other tables may have a column
    with the same name whose values are numbers, which then has another name for people."""
    lists = labels.section("lists")
    return _in_language(lists[column]) if column in lists else label(column)


def word(code: str) -> str:
    """The words for a code in the reader's language. An unknown code is returned unchanged."""
    known = labels.of_code(code)
    return code if known is None else _in_language(known)


def codes_in_words(codes: Sequence[str]) -> str:
    """The text of a cell with several codes. In Chinese, it has the words for the codes; in English, the codes
    themselves, so that readers can copy them into options."""
    return "、".join(map(word, codes)) if view().chinese else ", ".join(codes)


def total_label() -> str:
    """The heading of the row with the totals."""
    return _in_language(labels.section("words")["total"])


def word_of(section: str, key: str | int) -> str:
    """The words for a key of one section of `labels.toml`, such as `months`, in the reader's language."""
    return _in_language(labels.section(section)[str(key)])


def say(template: str, /, **values: Any) -> str:
    """The sentence in the reader's language. `template`: the sentence in English, with placeholders for the `values`
    (see `ledger.words`)."""
    return text_of(Note(template, values))


def text_of(sentence: Note) -> str:
    """The sentence of a note in the reader's language, with instants in the reader's zone."""
    reader = view()
    return Speaker(reader.lang, reader.instant, word, label_of_metric).say(sentence)


def kind(column: str, row: Row) -> str:
    """The kind of the value that the row has in this column: money, share, bp, factor, factor_bp, p, seconds, count,
    number, name, instant, day, metric, code or text."""
    value = row[column]
    if isinstance(value, datetime):
        return "instant"
    if isinstance(value, date):
        return "day"
    if isinstance(value, bool):
        return "text"
    if isinstance(value, int | float | Decimal):
        return _kind_of_number(column, row)
    return _texts(column) if isinstance(value, str) else "text"


def _texts(column: str) -> str:
    """The kind of a text in this column: `metric` (the name of a metric), `code` or `text`."""
    field = _field(column)
    texts = field.text if field is not None else None
    return "code" if texts == "word" else texts or "text"


def _in_words_always(column: str) -> bool:
    """Whether codes in this column are shown as words in English, too. In other columns, English shows the codes as
    they are in options and events."""
    field = _field(column)
    return field is not None and field.text == "word"


_BY_ENDING: Final = {
    "_minor": "money", "roi": "factor", "_bp": "bp", "_p": "p", "share": "share", "_rate": "share",
}  # fmt: skip
"""The kind of a column's values, by the ending of its name."""

_WHATEVER_THE_UNIT: Final = ("money", "factor", "factor_bp", "bp")
"""Kinds that stay as they are if a metric has the same name but another unit."""


def _kind_of_number(column: str, row: Row) -> str:
    whole = isinstance(row[column], int)
    column = _unit_column(column.partition(" ")[0], row)
    for suffix in labels.section("suffixes"):
        base = column.removesuffix(suffix)
        if base != column and base in _metrics():
            if suffix in ("_reached", "_change"):
                return "share"
            column = base
    field = _field(column)
    number = (field and field.number) or _by_ending(column)
    if column in _metrics() and number not in _WHATEVER_THE_UNIT:
        return _UNITS.get(_metrics()[column].unit, "count")
    if whole and number in (None, "share"):
        return "count"
    return number or "number"


def _unit_column(column: str, row: Row) -> str:
    """The name from which the unit of the value follows. If the row has a metric, and the column contains values of
    that metric, this is the name of the metric; otherwise it is the column."""
    field, metric = _field(column), row.get("metric")
    if field is None or field.of_metric is None or not isinstance(metric, str):
        return column
    return labels.experiment_metrics().get(metric, metric)


def _by_ending(column: str) -> str | None:
    return "p" if column == "p" else next((k for ending, k in _BY_ENDING.items() if column.endswith(ending)), None)


def _is_mean(column: str) -> bool:
    """Whether the values of this column are means. These are shown with a decimal even if a value is a whole number."""
    field = _field(column)
    return field is not None and field.of_metric == "mean"


def shown(column: str, row: Row, currency: str | None = None, bare: bool = False) -> str:
    """The value that the row has in this column, formatted for people. `currency`: the currency of an amount if the row
    names none. `bare`: whether to show an amount without its currency."""
    value = row[column]
    value_kind = kind(column, row)
    if value is None:
        return NOTHING
    if value_kind == "money":
        return _money(value, row.get("currency") or currency, bare)
    if value_kind == "count" and isinstance(value, float) and value.is_integer() and not _is_mean(column):
        return count(int(value))
    if value_kind == "metric":
        return label_of_metric(printable(str(value)))
    if value_kind == "code":
        code = printable(str(value))
        return word(code) if view().chinese or _in_words_always(column) else code
    if isinstance(value, bool):
        return _in_language(labels.section("words")["yes" if value else "no"])
    if isinstance(value, str) and value[:1] == "(":  # a placeholder such as "(none)"
        return word(printable(value))
    formatted: str = _FORMATS[value_kind](value)
    return formatted


def _money(value: float, currency: str | None, bare: bool) -> str:
    return amount(value, currency) if bare else text_of(Note("{value:money}", {"value": (value, currency)}))


def figure(name: str, value: Any, currency: str | None = None) -> str:
    """A single value, formatted for people. `name`: the name of its column; `currency`: its currency if it is an
    amount."""
    return shown(name, {name: value}, currency)


def in_words(values: Row, currency: str | None = None) -> str:
    """Several values on one line, each after the name of its column, formatted for people. `values`: by column; values
    that are None are left out. `currency`: the currency of amounts if `values` name none."""
    return ("，" if view().chinese else ", ").join(
        f"{label(name)} {shown(name, values, currency)}" for name, value in values.items() if value is not None
    )


def _factor(value: float) -> str:
    return f"{value:,.2f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _number(value: float) -> str:
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


_LONG_SECONDS: Final = {"days": 86_400, "hours": 3_600, "minutes": 60}


def _seconds(value: float) -> str:
    units = labels.section("durations")
    for unit, length in _LONG_SECONDS.items():
        if abs(value) >= 2 * length:
            return f"{value / length:,.1f} {_in_language(units[unit])}"
    return f"{value:,.0f} {_in_language(units['seconds'])}"


def text(value: Any) -> str:
    """Any value as text on one line. The items of lists and dictionaries are separated by commas, and instants are in
    the reader's zone."""
    if value is None:
        return NOTHING
    if isinstance(value, datetime):
        return view().instant(value)
    if isinstance(value, dict):
        return in_words(value) if value else NOTHING
    if isinstance(value, list | tuple):
        return ("、" if view().chinese else ", ").join(map(text, value)) if value else NOTHING
    if isinstance(value, float):
        return _number(value)
    return printable(str(plain(value)))


_FORMATS: Final[Mapping[str, Any]] = {
    "share": percent,
    "bp": percent_of_bp,
    "factor": _factor,
    "factor_bp": lambda basis_points: _factor(basis_points / 10_000),
    "p": _p,
    "seconds": _seconds,
    "count": lambda number: count(number) if isinstance(number, int) else f"{number:,.1f}",
    "number": _number,
    "name": str,
    "instant": text,
    "day": text,
    "text": text,
}
