"""Make what commands print safe: no character in the data can control the terminal or stay invisible.

While a command runs, standard output and standard error are `Guarded` streams. These replace control and format
characters (C0, C1, bidi and zero-width ones, lone surrogates) by their JSON escapes, such as `\\u202e`. JSON output
still means the same. Line ends, tabs and the command's own bold text stay.

Three things are written to the unguarded streams (see `behind`): CSV, which must contain data unchanged; CSV for
spreadsheets, whose cells are escaped with `visible_data`; and progress bars.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO, cast

# All characters of the Unicode categories Cc, Cf and Cs, and the line and paragraph separators, except \t and \n.
_HIDDEN: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
_UNSAFE: Final = re.compile(rf"\x1b\[[01]m|[{_HIDDEN}]")
_STYLES: Final = ("\x1b[0m", "\x1b[1m")


def visible(text: str) -> str:
    """The text, with the JSON escape in place of every character that is invisible or controls the terminal."""
    return _UNSAFE.sub(_escape, text)


def visible_data(text: str) -> str:
    """Like `visible`, for text that consists of data only. Escape sequences for bold are escaped too, since in data
    they do not come from the command."""
    return visible(text).replace("\x1b", r"\u001b")


def _escape(match: re.Match[str]) -> str:
    return match[0] if match[0] in _STYLES else json.dumps(match[0])[1:-1]


class Guarded:
    """A text stream that passes everything through `visible` before writing it to the stream `behind`."""

    def __init__(self, stream: TextIO) -> None:
        self.behind = stream

    def write(self, text: str) -> int:
        self.behind.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


def behind(stream: TextIO) -> TextIO:
    """The unguarded stream that `stream` writes to; `stream` itself if it is not `Guarded`. For data that must stay
    unchanged, and for drawing on the terminal."""
    while isinstance(stream, Guarded):
        stream = stream.behind
    return stream


@contextmanager
def guarded() -> Iterator[None]:
    """Within the block, standard output and standard error are `Guarded`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, Guarded(behind(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
