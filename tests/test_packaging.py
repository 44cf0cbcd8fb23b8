"""What is installed works without the checkout, and loads no more than it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from contextlib import closing
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any, Final

import pytest

from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from tests.command_line import done

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Folders of Python that are for developers.
NOT_INSTALLED: Final = {"tests", "benchmarks", "scripts"}
DEVELOPERS_EXTRAS: Final = {"dev", "retail"}
MADE: Final = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")


# ── The wheel ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=MADE)
    pip("wheel", "--no-deps", "--wheel-dir", folder, folder / "source")
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment that knows nothing but the wheel and what it asks for, with the extra that
    `consume` looks for. Whether all extras can be had together pip says without unpacking them, most of the cost."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder)
    # Compiling what is never imported would be half of the work.
    install = ("--python", folder / "bin" / "python", "install", "--no-compile", "-c", ROOT / "constraints.txt")
    pip(*install, f"{wheel}[service]")
    extras = ",".join(sorted(PROJECT["project"]["optional-dependencies"].keys() - DEVELOPERS_EXTRAS))
    pip(*install, "--dry-run", f"{wheel}[{extras}]")
    return folder / "bin" / "coupon-ledger"


def pip(*arguments: str | Path) -> None:
    """With the user's own cache: nothing is fetched twice."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def rooms() -> list[Path]:
    """The folders of the checkout that are installed."""
    folders = sorted(found.parent for found in ROOT.glob("*/__init__.py"))
    return [folder for folder in folders if folder.name not in {*NOT_INSTALLED, "coupon_ledger"}]


def test_the_package_links_to_every_room() -> None:
    """Else a new room would be there in the checkout and missing where it is installed."""
    links = {path.name: path.resolve() for path in (ROOT / "coupon_ledger").iterdir() if path.is_symlink()}
    assert links == {room.name: room for room in rooms()}


@pytest.mark.slow
def test_the_wheel_holds_all_rooms_and_nothing_else(wheel: Path) -> None:
    """Else an installed command would miss a schema or a query, or overwrite somebody's `tests`."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        f"coupon_ledger/{path.relative_to(ROOT)}"
        for room in rooms()
        for path in room.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == wanted | {"coupon_ledger/__init__.py", "coupon_ledger/py.typed"}
    assert {Path(name).suffix for name in inside} >= {".py", ".avsc", ".sql", ".toml", ".txt", ".typed"}


@pytest.mark.slow
def test_the_wheel_names_its_extras(wheel: Path) -> None:
    """Else `pip install coupon-ledger[…]` would install nothing more, with a warning that nobody reads."""
    found = metadata(wheel)
    requires = found.requires or []
    for extra, needed in PROJECT["project"]["optional-dependencies"].items():
        assert extra in found.metadata.get_all("Provides-Extra", [])
        assert len([line for line in requires if f'extra == "{extra}"' in line]) == len(needed)
    assert len([line for line in requires if "extra ==" not in line]) == len(PROJECT["project"]["dependencies"])


def metadata(wheel: Path) -> Distribution:
    name, number, *_ = wheel.name.split("-")
    return PathDistribution(zipfile.Path(wheel, f"{name}-{number}.dist-info/"))


@pytest.mark.slow
def test_an_installed_command_works_as_the_checkouts(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it works on its developers' machines alone."""
    monkeypatch.chdir(tmp_path)
    example = ROOT / "docs" / "example.ndjson"
    shared = {name: value for name, value in os.environ.items() if not name.startswith(("COUPON_LEDGER_", "PYTHON"))}
    shared["COUPON_LEDGER_ALERT_RULES"] = "none"  # else `consume` says which rules are in force

    def installed(*arguments: str | Path) -> str:
        command = [clean, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=shared)
        assert (ran.returncode, ran.stderr) == (0, ""), (arguments, ran.stderr)
        return ran.stdout

    where = "from coupon_ledger import ledger, cli, schemas; print(ledger.__file__, cli.__file__, schemas.__file__)"
    python = clean.with_name("python")
    told = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path, env=shared)
    assert all(Path(path).is_relative_to(clean.parent.parent) for path in told.stdout.split())
    assert installed("--version").startswith("coupon-ledger, version ")
    installed("init")
    installed("publish", example)
    installed("consume")
    asked = [("state", "c-1"), ("history", "c-1"), ("campaigns",), ("violations",), ("digest", "--columns", "facts")]
    answers = [json.loads(installed(*question, "--output", "json")) for question in asked]
    elsewhere = ["--database", "checkout.duckdb"]
    done("init", *elsewhere)
    done("consume", *elsewhere)
    assert answers == [done(*question, *elsewhere, "--output", "json").json for question in asked]
    assert len(installed("tail", "--no-follow", "--output", "ndjson").splitlines()) == 8


@pytest.fixture(scope="module")
def slim(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and no extra."""
    folder = tmp_path_factory.mktemp("slim")
    venv.create(folder)
    pip("--python", folder / "bin" / "python", "install", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_system_that_only_publishes_installs_little(
    slim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order system would carry an analytical database and half a gigabyte to say that a coupon was used."""
    monkeypatch.chdir(tmp_path)
    done("init")
    installed = [path for path in slim.parent.parent.glob("lib/python*/site-packages/**/*") if path.is_file()]
    assert sum(path.stat().st_size for path in installed) < 60_000_000
    command = slim.with_name("coupon-ledger")

    def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)

    told = subprocess.run([slim, "-c", PUBLISH, "sqlite:///coupon-ledger.log.db", ""], capture_output=True, text=True,
                          check=False, cwd=tmp_path)  # fmt: skip
    assert (told.stdout, told.stderr) == ("1 1\n", "")
    published = ran("publish", ROOT / "docs" / "example.ndjson")
    assert published.returncode == 0, published.stderr
    assert len(done("tail", "--no-follow", "--output", "ndjson").out.splitlines()) == 9
    for arguments, extra in (
        (("consume",), "consumer"),
        (("state", "c-1"), "consumer"),
        (("publish", "--topic", "coupon.events", "x.parquet"), "consumer"),
    ):
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        refused = ran(*arguments)
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
        assert f"pip install 'coupon-ledger[{extra}]'" in refused.stderr


@pytest.mark.slow
def test_it_lives_beside_an_application_with_folders_of_its_names(clean: Path, tmp_path: Path) -> None:
    """A shop's own `schemas/` or `api/` would be taken for the ledger's, and publishing end in an AttributeError."""
    for name in (*(room.name for room in rooms()), *NOT_INSTALLED):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"WHOSE = 'the application: {name}'\n", encoding="utf-8")
    (tmp_path / "application.py").write_text(NEIGHBOUR, encoding="utf-8")
    python = clean.with_name("python")
    ran = subprocess.run([python, "application.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "1 folded\n")


NEIGHBOUR: Final = """
import analysis, api, benchmarks, cli, consumers, delivery, ledger, projections, questions, reports, schemas
import scripts, tests

for module in (
    analysis, api, benchmarks, cli, consumers, delivery, ledger, projections, questions, reports, schemas
):
    assert module.WHOSE == f"the application: {module.__name__}"

import contextlib, io
from coupon_ledger import Publisher, events
from coupon_ledger.cli.main import main

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(list(arguments))
        except SystemExit as end:
            assert not end.code, arguments

run("init")
with Publisher.open("sqlite:///coupon-ledger.log.db") as publisher:
    publisher.publish(
        events.Created(event_id="e-1", occurred_at="2026-11-11T00:00:00Z", source="shop", coupon_id="c-1",
                       campaign_id="k-1", coupon_type="cash")
    )
run("consume")
run("state", "c-1")
print(publisher.report.accepted, "folded")
"""


# ── What is loaded ───────────────────────────────────────────────────────────────────────────────────────────

WEB: Final = ["fastapi", "prometheus_client", "starlette", "uvicorn"]
TABLES: Final = ["duckdb", "numpy", "polars", "pyarrow"]
HEAVY: Final = {*WEB, *TABLES, "fastavro", "kafka", "pydantic", "rich"}
HELP: Final = """
import sys
from coupon_ledger.cli.main import COMMANDS, main
for arguments in (["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code
print(*sys.modules, file=sys.stderr)
"""
PUBLISH: Final = """
import sys

url, prefix, *absent = sys.argv[1:]

class NotHere:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in absent:
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, NotHere())
from coupon_ledger import Publisher, events

with Publisher.open(url, topic_prefix=prefix) as publisher:
    publisher.publish(
        events.Used(event_id="e-1", occurred_at="2026-11-11T00:00:01Z", source="shop", coupon_id="c-1",
                    user_id="u-1", order_id="o-1", discount_minor=500)
    )
    publisher.publish({"topic": "order.events"})
print(publisher.report.accepted, len(publisher.report.refused))
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)


@pytest.mark.long
def test_help_loads_nothing_heavy() -> None:
    """Else every command, and every press of the tab key, would wait for libraries that it does not use."""
    loaded = set(run(HELP).stderr.split())
    assert "click" in loaded
    assert not loaded & HEAVY


def test_importing_the_publisher_loads_nothing_heavy() -> None:
    """Else every program that may publish would wait for it when it starts, and 0.3 s is what it may take."""
    loaded = set(run("import sys; from coupon_ledger import Publisher; print(*sys.modules)").stdout.split())
    assert "coupon_ledger.ledger.publisher" in loaded
    assert not loaded & (HEAVY | {"ssl"})


@pytest.mark.long
def test_publishing_to_an_embedded_log_does_not_load_kafkas_client(sqlite_log_settings: LogSettings) -> None:
    """Else a script would wait for it longer than for everything else that it does."""
    with closing(open_log(sqlite_log_settings, create=True)) as log:
        log.create_topics()
    loaded = set(run(PUBLISH + "print(*sys.modules)", sqlite_log_settings.url, "").stdout.split())
    assert "coupon_ledger.ledger.sqlite_log" in loaded
    assert not loaded & {*WEB, *TABLES, "kafka", "rich", "ssl"}


@pytest.mark.long
def test_publishing_needs_neither_the_database_nor_the_web(log_settings: LogSettings) -> None:
    """Else a shop would have to install an analytical database to say that a coupon was used."""
    log = open_log(log_settings, create=True)
    try:
        log.create_topics()
        assert run(PUBLISH, log_settings.url, log_settings.topic_prefix, *WEB, *TABLES).stdout == "1 1\n"
        assert sum(log.end_positions(log.partitions(INPUT_TOPICS)).values()) == 1
    finally:
        log.close()
