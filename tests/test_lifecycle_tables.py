"""Every cell, guard and rule of the specification's sections 2 and 3, by name, on both folds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.rules import STATES, TRANSITIONS, types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from tests.folding import Outcome, by_reference, emptied, fold_in, scratch_store, stored
from tests.lifecycle_cases import CASES, CELLS, WAYS, Case, batches, check_case


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("cases")) as opened:
        yield opened


@pytest.fixture(scope="module")
def columnar(store: Store) -> dict[str, Outcome]:
    """Per way, what the tables say after all cases."""
    found = {}
    for way in WAYS:
        with emptied(store):
            fold_in(store, apply, COUPON, batches(way))
            found[way] = stored(store, COUPON)
    return found


@pytest.fixture(scope="module")
def reference() -> Outcome:
    return by_reference(lifecycle.fold, [d for case in CASES.values() for d in case.deliveries])


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_the_reference_fold_follows_the_specification(case: Case, reference: Outcome) -> None:
    """`history` would explain a coupon's life with a rule that is not in the specification."""
    check_case(case, reference)


@each_case
def test_the_tables_follow_the_specification(case: Case, columnar: dict[str, Outcome]) -> None:
    """The tables would show a state, an owner, an amount or a violation that is not the coupon's."""
    for way, outcome in columnar.items():
        print(way)
        check_case(case, outcome)


@pytest.mark.parametrize("way", WAYS)
def test_both_folds_say_the_same_of_every_case(way: str, reference: Outcome, columnar: dict[str, Outcome]) -> None:
    """The explanation of a coupon and its row would contradict each other."""
    assert columnar[way].rows == reference.rows
    assert columnar[way].violations == reference.violations


def test_the_data_file_is_the_table_of_the_specification() -> None:
    """The printed table, which every document shows, would not be the one that is folded by."""
    told = {
        (state, kind): (cell.removesuffix("!"), cell.endswith("!"))
        for kind, row in TRANSITIONS.items()
        for state, cell in zip(STATES, row, strict=True)
    }
    assert told == CELLS
    assert len(CELLS) == len(STATES) * len(types(COUPON)) == 80


def test_every_cell_has_a_case() -> None:
    """A cell could be wrong without a test that says so."""
    assert {f"cell: {kind} when {state}" for state, kind in CELLS} <= CASES.keys()
