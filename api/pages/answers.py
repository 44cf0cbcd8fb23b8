"""The answers that pages are made of. Viewers who see the same share one answer for each state: it is asked once, when
the first of them needs it, and forgotten when later states have come."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from coupon_ledger.api.client import Remote
from coupon_ledger.api.service.asking import on_behalf_of, whose
from coupon_ledger.api.service.callers import Caller
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.ledger.plain import plain
from coupon_ledger.questions.registry import AsOf
from coupon_ledger.reports.text import Row

MOST: Final = 600
"""Answers that are kept."""
MOST_ROWS: Final = 20_000
"""Rows of an answer that a page can be made of."""

T = TypeVar("T")


class Found(NamedTuple):
    """An answer, as rows that nobody may change. `cut`: whether there were more rows than `MOST_ROWS`."""

    as_of: AsOf
    rows: Sequence[Row]
    cut: bool = False


class PageAnswers:
    """For one event loop."""

    def __init__(self, link: OwnerLink) -> None:
        self._link = link
        self._kept: OrderedDict[str, asyncio.Task[Any]] = OrderedDict()

    async def ask(self, caller: Caller, name: str, parameters: Mapping[str, Any]) -> Found:
        """The answer in the present state. Raises what the question raises, and `OwnerGone`."""
        return await self.made(caller, [name, plain(dict(parameters))], partial(_asked, caller, name, parameters))

    async def made(self, caller: Caller, key: list[Any], make: Callable[[Remote], T]) -> T:
        """What `make` makes of answers in the present state. `key`: says what it is, for whoever sees the same."""
        state = self._link.state
        version = state.version if state is not None else ""
        text = json.dumps([version, whose(caller), *key], default=str)
        task = self._kept.get(text)
        if task is None:
            context = contextvars.copy_context()  # the reader's language is part of it
            task = asyncio.create_task(self._link.run(lambda remote: context.run(make, remote)))
            self._kept[text] = task
            task.add_done_callback(partial(self._forget_failed, text))
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(text)
        # A viewer who goes does not stop what others wait for.
        made: T = await asyncio.shield(task)
        return made

    def _forget_failed(self, key: str, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._kept.pop(key, None)


def _asked(caller: Caller, name: str, parameters: Mapping[str, Any], remote: Remote) -> Found:
    answer = on_behalf_of(caller, remote).ask(name, **parameters)
    rows: list[Row] = []
    for frame in answer.frames:
        rows.extend(frame.head(MOST_ROWS - len(rows) + 1).to_dicts())
        if len(rows) > MOST_ROWS:
            return Found(answer.as_of, rows[:MOST_ROWS], cut=True)
    return Found(answer.as_of, rows)
