"""Every command of docs/tour.md and of the README's first steps works as a newcomer types it, and reads well."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from coupon_ledger.cli.view import WIDTH
from coupon_ledger.reports.text import text_width
from tests.command_line import Ran, done, ledger

ROOT = Path(__file__).parent.parent
EXPECTED_1 = " || true"
"""After a command that ends with exit code 1, as the text says."""


def commands(document: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("coupon-ledger ")]


TOUR = commands(ROOT / "docs" / "tour.md")
ENDLESS = ("--follow", "tail", "--help")
README = [line for line in commands(ROOT / "README.md") if not any(word in line for word in ENDLESS)]


def run(line: str) -> Ran:
    return ledger(*shlex.split(line.removesuffix(EXPECTED_1))[1:])


def reads_well(line: str, ran: Ran) -> None:
    assert ran.code == (1 if line.endswith(EXPECTED_1) else 0), (line, ran.err)
    assert "Traceback" not in ran.err
    for told in ran.out.splitlines():
        if not told.startswith(("|", "#", ">", "-", "    ")) and "──" in ran.out:  # a table, and no Markdown
            assert text_width(told) <= WIDTH, (line, told)
    assert not re.search(r"\d\.\d{5,}", re.sub(r"\d\d:\d\d:\d\d\.\d+", "", ran.out)), (line, ran.out)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The demo's ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("year"))
        patch.setenv("LC_ALL", "C.UTF-8")
        done("init")
        done("import", "complete-journey")
        done("consume")
        yield


@pytest.mark.slow
@pytest.mark.parametrize("line", TOUR)
def test_a_command_of_the_tour_works_and_fits_100_columns(line: str, year: None) -> None:
    reads_well(line, run(line))


@pytest.mark.long
def test_the_readmes_first_steps_work_as_they_stand(home: Path) -> None:
    """In their order, in one folder."""
    (home / "docs").symlink_to(ROOT / "docs")
    assert len(README) > 10
    for line in README:
        reads_well(line, run(line))
