"""Make what commands print safe: no character in the data can control the terminal or stay invisible.

While a command runs, everything printed to standard output and error goes through `guarded`. Control and format
characters (C0, C1, bidi and zero-width ones, lone surrogates) are shown as their JSON escapes, such as `\\u202e`, so
that JSON stays the same JSON. Line ends, tabs and the command's own bold text stay. CSV must hold data unchanged, so
it is written to the unguarded stream (`behind`). So are progress bars, and CSV for spreadsheets, which escapes its
cells itself (`visible_data`).
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
    """Like `visible`, for text that is only data: an escape sequence for bold in it is not the command's, so it is
    escaped too."""
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
    """The unguarded stream, for data that must stay unchanged and for drawing on the terminal."""
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
