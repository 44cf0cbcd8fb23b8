"""Reads the part of PromQL that the documents use: enough to refuse what Prometheus would refuse, and to name the
metrics and labels that an expression asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<duration>(?:\d+(?:ms|[smhdwy]))+\b) | (?P<number>\d+(?:\.\d+)?\b) | (?P<word>[A-Za-z_:][\w:]*)"""
    r""" | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<sign>==|!=|>=|<=|=~|!~|[-+*/%^<>=(){}\[\],]))""",
    re.VERBOSE,
)
_BINARY: Final = {"or": 1, "and": 2, "unless": 2} | dict.fromkeys(("==", "!=", ">=", "<=", ">", "<"), 3)
_BINARY.update({"+": 4, "-": 4, "*": 5, "/": 5, "%": 5})
_AGGREGATIONS: Final = frozenset({"sum", "min", "max", "avg", "count"})
_FUNCTIONS: Final = {
    "absent": ("vector",),
    "changes": ("range",),
    "clamp_min": ("vector", "scalar"),
    "delta": ("range",),
    "histogram_quantile": ("scalar", "vector"),
    "increase": ("range",),
    "rate": ("range",),
    "time": (),
}


class PromqlError(ValueError):
    """The expression is not one of PromQL, or one that this reader does not know."""


@dataclass
class Asked:
    """`selected`: metrics with the names of the labels in braces. `labels`: those named by `by`, `on` and the like."""

    selected: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


def read(expression: str) -> Asked:
    """What the expression asks for. Raises `PromqlError`."""
    return _Reader(expression).all()


class _Reader:
    """Reads from left to right. Each method returns the type of what it read: scalar, vector or range."""

    def __init__(self, expression: str) -> None:
        self._tokens = [*_tokens(expression), ("end", "")]
        self._asked = Asked()

    def all(self) -> Asked:
        if self._expression(1) == "range":
            raise PromqlError("a range is no value")
        self._take("end")
        return self._asked

    def _expression(self, weakest: int) -> str:
        left = self._value()
        while (strength := _BINARY.get(self._tokens[0][1], 0)) >= weakest:
            operator = self._tokens.pop(0)[1]
            if self._tokens[0][1] in ("on", "ignoring"):
                self._tokens.pop(0)
                self._asked.labels.update(self._names("(", ")"))
            types = (left, self._expression(strength + 1))
            if "range" in types or (strength < 3 and "scalar" in types):
                raise PromqlError(f"{operator} between {' and '.join(types)}")
            left = "vector" if "vector" in types else "scalar"
        return left

    def _value(self) -> str:
        kind, text = self._tokens.pop(0)
        if kind == "number":
            return "scalar"
        if text == "(":
            inner = self._expression(1)
            self._take("sign", ")")
            return inner
        if kind != "word":
            raise PromqlError(f"{text or 'the end'!r} where a value is expected")
        if text in _AGGREGATIONS:
            return self._aggregation()
        return self._call(text) if self._tokens[0][1] == "(" else self._selector(text)

    def _aggregation(self) -> str:
        if self._tokens[0][1] in ("by", "without"):
            self._tokens.pop(0)
            self._asked.labels.update(self._names("(", ")"))
        self._arguments("an aggregation", ("vector",))
        return "vector"

    def _call(self, name: str) -> str:
        if name not in _FUNCTIONS:
            raise PromqlError(f"no function {name}")
        self._arguments(name, _FUNCTIONS[name])
        return "vector" if _FUNCTIONS[name] else "scalar"

    def _arguments(self, name: str, expected: tuple[str, ...]) -> None:
        self._take("sign", "(")
        for number, wanted in enumerate(expected):
            if number:
                self._take("sign", ",")
            if (given := self._expression(1)) != wanted:
                raise PromqlError(f"{name} takes a {wanted}, not a {given}")
        self._take("sign", ")")

    def _selector(self, metric: str) -> str:
        labels = self._matchers() if self._tokens[0][1] == "{" else ()
        self._asked.selected.append((metric, labels))
        if self._tokens[0][1] != "[":
            return "vector"
        self._take("sign", "[")
        self._take("duration")
        self._take("sign", "]")
        return "range"

    def _matchers(self) -> tuple[str, ...]:
        names: list[str] = []
        self._take("sign", "{")
        while self._tokens[0][1] != "}":
            if names:
                self._take("sign", ",")
            names.append(self._take("word"))
            if self._take("sign") not in ("=", "!=", "=~", "!~"):
                raise PromqlError(f"label {names[-1]} is not compared")
            self._take("string")
        self._take("sign", "}")
        return tuple(names)

    def _names(self, opening: str, closing: str) -> list[str]:
        self._take("sign", opening)
        names = [self._take("word")]
        while self._tokens[0][1] == ",":
            self._take("sign", ",")
            names.append(self._take("word"))
        self._take("sign", closing)
        return names

    def _take(self, kind: str, text: str | None = None) -> str:
        found, value = self._tokens.pop(0)
        if found != kind or text not in (None, value):
            raise PromqlError(f"{value or 'the end'!r} where {text or kind!r} is expected")
        return value


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(expression.rstrip())
    while at < end:
        found = _TOKEN.match(expression, at)
        if found is None or found.lastgroup is None:
            raise PromqlError(f"cannot be read from {expression[at : at + 20]!r} on")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()
