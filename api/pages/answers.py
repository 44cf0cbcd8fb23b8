"""The answers that pages are made of. Viewers who may see the same share them."""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from coupon_ledger.api.client import Remote
from coupon_ledger.api.pages.shared import Shared
from coupon_ledger.api.service.asking import whose
from coupon_ledger.api.service.callers import Caller
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.ledger.plain import plain
from coupon_ledger.questions.registry import AsOf
from coupon_ledger.reports.text import Row

T = TypeVar("T")
MOST: Final = 600
"""Answers that are kept."""
MOST_ROWS: Final = 20_000
"""Rows of an answer that a page can be made of."""
LIMIT_S: Final = 30.0
"""A question of a page that takes longer is stopped."""
_LASTING_S: Final[Mapping[str, float]] = {"campaigns": 15.0, "campaign": 3.0, "alerts": 2.0, "alert-groups": 2.0}
"""Answers that cost much and change little: for so long they stand although there were commits."""


class Found(NamedTuple):
    """An answer, as read-only rows. `cut`: whether there were more rows than `MOST_ROWS`."""

    as_of: AsOf
    rows: Sequence[Row]
    cut: bool = False


class PageAnswers:
    """For one event loop."""

    def __init__(self, link: OwnerLink) -> None:
        self._link = link
        self._shared: Shared[Any] = Shared(MOST)

    async def ask(self, caller: Caller, name: str, parameters: Mapping[str, Any]) -> Found:
        """The answer in the present state. Raises what the question raises, and `OwnerGone`."""
        key = [name, plain(dict(parameters))]
        return await self.made(caller, key, partial(_asked, caller, name, parameters), _LASTING_S.get(name, 0.0))

    async def made(self, caller: Caller, key: Sequence[Any], make: Callable[[Remote], T], lasting_s: float = 0.0) -> T:
        """What `make` makes of answers in the present state. `key`: identifies the result among callers
        with the same rights. `lasting_s`: as for `Shared`."""
        context = contextvars.copy_context()  # the reader's language is part of it
        text = json.dumps([whose(caller), *key], default=str)
        work = partial(self._link.run, lambda remote: context.run(make, remote))
        made: T = await self._shared.get(text, self.version, work, lasting_s)
        return made

    def version(self) -> str:
        """Of the present state."""
        state = self._link.state
        return "" if state is None else state.version


def _asked(caller: Caller, name: str, parameters: Mapping[str, Any], remote: Remote) -> Found:
    answer = remote.restricted(caller.access, LIMIT_S).ask(name, **parameters)
    rows: list[Row] = []
    for frame in answer.frames:
        rows.extend(frame.head(MOST_ROWS - len(rows) + 1).to_dicts())
        if len(rows) > MOST_ROWS:
            return Found(answer.as_of, rows[:MOST_ROWS], cut=True)
    return Found(answer.as_of, rows)
