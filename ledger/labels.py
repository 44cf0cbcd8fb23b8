"""Names of columns and codes in English and Chinese: the table `labels.toml`.

The table is parsed on first use: a command that shows no names does not pay for it.
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
    """A column. `number`: the kind of its numbers, if its name does not say it; `of_metric`: `value` or `mean` if they
    have the unit of the row's metric; `text`: what its texts are (`metric`, `code`, `word`); `personal`:
    whether it holds personal data. `labels.toml` explains the values."""

    label: Label
    number: str | None = None
    of_metric: str | None = None
    text: str | None = None
    personal: bool = False


NUMBERS: Final = frozenset("money share bp factor factor_bp p name".split())
TEXTS: Final = frozenset("metric code word".split())


@cache
def table() -> Mapping[str, Any]:
    """The whole of `labels.toml`."""
    return tomllib.loads(files(__package__).joinpath("labels.toml").read_text(encoding="utf-8"))


@cache
def fields() -> Mapping[str, Field]:
    return {name: _field(**entry) for name, entry in table()["fields"].items()}


def _field(en: str, zh: str, **shown: Any) -> Field:
    return Field(Label(en, zh), **shown)


def personal_columns() -> frozenset[str]:
    """The columns with personal data: which user did something, or what is known of a user."""
    return frozenset(name for name, field in fields().items() if field.personal)


@cache
def section(name: str) -> Mapping[str, Label]:
    """The labels of one section of `labels.toml`. `name`: such as `suffixes`, or `codes.events` for a section of
    codes."""
    outer, _, inner = name.partition(".")
    entries = table()[outer][inner] if inner else table()[outer]
    return {key: Label(**entry) for key, entry in entries.items()}


@cache
def codes() -> Mapping[str, Label]:
    """Every code that the table lists. `of_code` also names violations such as `extended_when_used`, which it does not
    list."""
    return {code: label for name in table()["codes"] for code, label in section(f"codes.{name}").items()}


def of_code(code: str) -> Label | None:
    """The label of a code. A violation such as `extended_when_used` is named after the event and the state before it.
    None for unknown codes."""
    event, when, state = code.partition("_when_")
    if not when:
        return codes().get(code)
    of_event = section("codes.events").get(event)
    template = section("in_state").get("again" if event == state else state)
    if of_event is None or template is None:
        return None
    return Label(template.en.format(event=of_event.en), template.zh.format(event=of_event.zh))


def experiment_metrics() -> Mapping[str, str]:
    """By metric that experiments compare, the column or metric whose label it has."""
    names: Mapping[str, str] = table()["experiment_metrics"]
    return names


def in_words(name: str) -> str:
    """The English words of a column's name, without the unit at its end."""
    return name.removesuffix("_minor").removesuffix("_bp").replace("_", " ")
