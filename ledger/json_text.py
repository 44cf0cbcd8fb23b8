"""Parses JSON in events and cells, more strictly than Python does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from coupon_ledger.ledger.errors import InvalidEvent, Problem


def json_value(text: str, parse_float: Callable[[str], Any] = float) -> Any:
    """Parse a JSON text. Raises `InvalidEvent` if it is not valid JSON, has NaN, or repeats a name in an object. Only
    for a repeated name does the error's problem have a field: that name. `parse_float`: converts the text of a number
    with a decimal point or an exponent."""
    try:
        return json.loads(text, parse_float=parse_float, parse_constant=_no_number, object_pairs_hook=_each_name_once)
    except json.JSONDecodeError as error:
        raise bad(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise bad("JSON that is nested too deeply") from error
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        raise bad("JSON with a number of too many digits") from error


def bad(problem: str) -> InvalidEvent:
    return InvalidEvent([Problem("", problem)])


def _no_number(name: str) -> None:
    raise bad(f"not JSON ({name} is no JSON number)")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Turn the names and values of a JSON object into a dict. Raises `InvalidEvent` for a repeated name, since it is
    unknown which value was meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidEvent([Problem(twice, "stands more than once in one object")])
    return values
