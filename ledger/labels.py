"""The labels of columns and codes, in English and Chinese: what people read instead of the names. The labels are in the
table `labels.toml`.

The table is read when a label is first needed, so a command that shows no labels does not read it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Label:
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Field:
    """The label of a column, and how its values are shown. `number`: the kind of its numbers, if the column's name does
    not say it. `of_metric`: for numbers in the unit of the metric that the row names, whether they are a single value
    (`value`) or a mean (`mean`). `text`: what the column's texts are (`metric`, `code` or `word`). `personal`: whether
    the column has personal data. The head of `labels.toml` explains the values."""

    label: Label
    number: str | None = None
    of_metric: str | None = None
    text: str | None = None
    personal: bool = False


NUMBERS: Final = frozenset("money share bp factor factor_bp p name seconds".split())
TEXTS: Final = frozenset("metric code word".split())


@cache
def table() -> Mapping[str, Any]:
    """The contents of `labels.toml`, as parsed."""
    return tomllib.loads(files(__package__).joinpath("labels.toml").read_text(encoding="utf-8"))


@cache
def fields() -> Mapping[str, Field]:
    return {name: _field(**entry) for name, entry in table()["fields"].items()}


def _field(en: str, zh: str, **shown: Any) -> Field:
    return Field(Label(en, zh), **shown)


def personal_columns() -> frozenset[str]:
    """The names of the columns with personal data: which user did something, or what is known of a user."""
    return frozenset(name for name, field in fields().items() if field.personal)


@cache
def section(name: str) -> Mapping[str, Label]:
    """The labels in one section of `labels.toml`, by column or code. `name`: the section's name, such as `suffixes` or
    `codes.events`."""
    outer, _, inner = name.partition(".")
    entries = table()[outer][inner] if inner else table()[outer]
    return {key: Label(**entry) for key, entry in entries.items()}


@cache
def codes() -> Mapping[str, Label]:
    """The label of every code in `labels.toml`, by code. Violations such as `extended_when_used` are not in the file;
    `of_code` composes their labels."""
    return {code: label for name in table()["codes"] for code, label in section(f"codes.{name}").items()}


def of_code(code: str) -> Label | None:
    """The label of a code; None if the code is unknown. The label of a violation such as `extended_when_used` is
    composed of the labels of the event (`extended`) and of the state (`used`)."""
    event, when, state = code.partition("_when_")
    if not when:
        return codes().get(code)
    of_event = section("codes.events").get(event)
    template = section("in_state").get("again" if event == state else state)
    if of_event is None or template is None:
        return None
    return Label(template.en.format(event=of_event.en), template.zh.format(event=of_event.zh))


def experiment_metrics() -> Mapping[str, str]:
    """For each metric that experiments compare, the name of the column or metric that has the same label."""
    names: Mapping[str, str] = table()["experiment_metrics"]
    return names


def in_words(name: str) -> str:
    """The name of a column as English words, without the unit at its end: `net_sales_minor` becomes `net sales`."""
    return name.removesuffix("_minor").removesuffix("_bp").replace("_", " ")
