"""The hierarchy of errors is one file, and its head draws all of it."""

from __future__ import annotations

import importlib
import pkgutil
import re

from coupon_ledger import analysis, api, cli, consumers, delivery, ledger, projections, questions, reports
from coupon_ledger.ledger import errors
from coupon_ledger.ledger.errors import LedgerError

DRAWN = re.compile(r"^    ((?:│   |    )*(?:├── |└── )?)(\w+)(?: |$)", re.MULTILINE)


def every_subclass(kind: type[LedgerError]) -> set[type[LedgerError]]:
    below: list[type[LedgerError]] = kind.__subclasses__()
    return {kind}.union(*map(every_subclass, below))


def test_every_error_that_a_user_can_act_on_stands_in_the_tree() -> None:
    """Whoever handles an error would look for it in forty files."""
    for room in (ledger, analysis, projections, questions, reports, consumers, delivery, api, cli):
        for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = {kind for kind in every_subclass(LedgerError) if not kind.__module__.startswith(("tests.", "mistaken."))}
    assert {kind.__module__ for kind in ours} == {"coupon_ledger.ledger.errors"}
    drawn = [name for _, name in DRAWN.findall(errors.__doc__ or "")]
    assert sorted(drawn) == sorted(kind.__name__ for kind in ours)


def test_the_tree_shows_what_is_below_what() -> None:
    depth: list[str] = []
    for indent, name in DRAWN.findall(errors.__doc__ or ""):
        del depth[len(indent) // 4 :]
        assert not depth or issubclass(getattr(errors, name), getattr(errors, depth[-1])), name
        depth.append(name)
