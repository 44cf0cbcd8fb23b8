"""Kill the consumer, again and again, and compare what is left with a run that nobody disturbed.

    python -m benchmarks.chaos [--log embedded|kafka|both] [--kills 200] [--seed N]

One log per kind: a sale day with repeats and late events, orders, records that are not events, and ids that return with
another content. A scenario kills the process (always with SIGKILL) at one boundary, after a randomly drawn number of
passings, and starts it again on the same database, until its share of kills is used up or the end of the log is
reached. An undisturbed start then finishes. The database must equal that of a single undisturbed run with other
batches: facts and full digest of every table, position and account of every partition, every dead letter. And every
dead letter must be on the log's topic for dead letters, at least once.

Scenarios: the consumer's six boundaries; `append`, `appended`: before and after dead letters go to the log, once their
batch is committed; `close`: while the database is closed, which rewrites the file; `random`: the command itself at any
moment of its start (which replays what the last run left) or of its work. The seed is printed; the same seed gives the
same log and the same draws.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.consumer_process import CLOSING
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.ledger.codec import HEADER_BYTES, MARKER, SCHEMA_NAME, decode, encode_row
from coupon_ledger.ledger.columns import encode_columns
from coupon_ledger.ledger.log import EventLog, Record, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import ENVIRONMENT_PREFIX, LogSettings
from coupon_ledger.ledger.topics import COUPON, DEAD_LETTERS, INPUT_TOPICS, KEY_FIELD, ORDER
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.checkpoints import Account
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import digests
from coupon_ledger.projections.ownership import owner_file
from tests import kafka_broker

BOUNDARIES: Final = ("poll", "decode", "begin", "fold", "offsets", "commit")
SCENARIOS: Final = (*BOUNDARIES, "append", "appended", "close", "random")
ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = Path(__file__).with_name("latest-chaos.json")
COMMAND: Final = Path(sys.executable).with_name("coupon-ledger")
PATIENCE_S: Final = 120.0

_APPEND: Final = 500


class Unexpected(Exception):
    """A consumer ended in an unplanned way; the message holds its output."""


# --- the log


def records(events: int, seed: int) -> list[Record]:
    """The day's records in order of arrival; about 1 in 100 is not an event, or is a conflict."""
    print(f"a sale day of {events:,} events, seed {seed}")
    good = [
        Record(topic, key.encode(), value)
        for topic, frame in sale_day(World(seed=seed, events=events, orders=True))
        for key, value in zip(frame[KEY_FIELD[topic]], encode_columns(topic, frame), strict=True)
    ]
    draw = random.Random(seed)
    placed: list[tuple[float, Record]] = list(enumerate(good))
    for _ in range(len(good) // 200):
        placed.append((draw.uniform(0, len(good)), _conflict(draw.choice(good), draw)))
        placed.append((draw.uniform(0, len(good)), _poison(draw.choice(good), draw)))
    return [record for _, record in sorted(placed, key=lambda p: p[0])]


def _conflict(record: Record, draw: random.Random) -> Record:
    """The same key and event_id with another content."""
    writer, row = decode(record.value)
    row["source"] = f"copy-{draw.randrange(3)}"
    return record._replace(value=encode_row(writer.name, row))


def _poison(record: Record, draw: random.Random) -> Record:
    """A record that must become a dead letter."""
    value = record.value
    elsewhere = ORDER if record.topic != ORDER else COUPON
    kinds = (
        lambda: record._replace(value=draw.randbytes(draw.randrange(40))),
        lambda: record._replace(value=b""),
        lambda: record._replace(value=value[: draw.randrange(HEADER_BYTES, len(value))]),
        lambda: record._replace(value=value + draw.randbytes(3)),
        lambda: record._replace(value=MARKER + draw.randbytes(8) + value[HEADER_BYTES:]),
        lambda: record._replace(topic=elsewhere),
        lambda: record._replace(value=_invalid(record)),
    )
    return draw.choice(kinds)()


def _invalid(record: Record) -> bytes:
    """An event that Avro accepts and the rules do not: its id is empty."""
    _, row = decode(record.value)
    return encode_row(SCHEMA_NAME[record.topic], row | {"event_id": ""})


def fill(log: EventLog, to_append: Sequence[Record]) -> None:
    """Append in small batches, so that `recorded_at` differs between records."""
    log.create_topics()
    for first in range(0, len(to_append), _APPEND):
        log.append(to_append[first : first + _APPEND])


# --- processes


@dataclass(frozen=True, slots=True)
class Run:
    """How a process ended: `killed`, or by itself after reading all. `lag`: as last printed, None if it was not."""

    killed: bool
    lag: int | None


@dataclass(frozen=True)
class Consumers:
    """Starts consumers of one log, one after another."""

    log: LogSettings
    folder: Path
    batch_size: int

    def undisturbed(self, database: Path, batch_size: int) -> None:
        with self._started([*_module(), *self._arguments(database, batch_size)]) as process:
            self._ended(process)

    def killed_at(self, boundary: str, passings: int, database: Path) -> Run:
        arguments = [*_module(), *self._arguments(database, self.batch_size), "--kill", f"{boundary}:{passings}"]
        with self._started(arguments) as process:
            return self._ended(process)

    def killed_closing(self, batches: int, delay_s: float, database: Path) -> Run:
        arguments = [*_module(), *self._arguments(database, self.batch_size), "--kill", f"close:{batches}"]
        with self._started(arguments) as process:
            assert process.stdout is not None
            word, _, lag = process.stdout.readline().decode().partition(" ")
            if word == CLOSING:
                time.sleep(delay_s)
                process.send_signal(signal.SIGKILL)
            return Run(self._ended(process).killed, int(lag) if word == CLOSING else None)

    def killed_by_clock(self, delay_s: float, at_work: bool, database: Path) -> Run:
        """Run the command itself and kill it `delay_s` after its start or, with `at_work`, after it owns the
        database."""
        with self._started([str(COMMAND), "consume", *self._arguments(database, self.batch_size)]) as process:
            if at_work:
                _wait_for_owner(process, database)
            # Ends early if the process does.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=delay_s)
            process.send_signal(signal.SIGKILL)
            return self._ended(process)

    def _arguments(self, database: Path, batch_size: int) -> list[str]:
        named = {
            "--log": self.log.url,
            "--topic-prefix": self.log.topic_prefix,
            "--database": str(database),
            "--batch-size": str(batch_size),
        }
        return [part for pair in named.items() for part in pair]

    @contextlib.contextmanager
    def _started(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _ended(self, process: subprocess.Popen[bytes]) -> Run:
        """Raises `Unexpected` for any end other than success and SIGKILL."""
        try:
            said, complained = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise Unexpected(f"pid {process.pid} was still running after {PATIENCE_S:.0f} s") from error
        if process.returncode not in (0, -signal.SIGKILL):
            raise Unexpected(f"exit code {process.returncode}: {said.decode()}{complained.decode()}")
        return Run(process.returncode == -signal.SIGKILL, None)


def _module() -> list[str]:
    return [sys.executable, "-m", "benchmarks.consumer_process"]


def _wait_for_owner(process: subprocess.Popen[bytes], database: Path) -> None:
    """Wait until the process owns the database, or has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(owner_file(database).read_text(encoding="utf-8"))["pid"] == process.pid:
                return
        time.sleep(0.002)


# --- what is compared


def state(database: Path) -> dict[str, Any]:
    """Everything that must be equal, by name."""
    with open_database(database) as store:
        upkeep.settle(store)  # what the last batches left to settle
        contents = {
            f"{d.table}: {kind}": getattr(d, kind) for d in digests(store) for kind in ("rows", "facts", "full")
        }
        contents |= {f"account of {p.topic}/{p.partition}": asdict(a) for p, a in checkpoints.load(store).items()}
        letters = store.frame("SELECT * FROM dead_letters ORDER BY topic, log_partition, log_offset")
        return contents | {
            "dead letters": letters.rows(),
            "rows left in the outbox": store.frame("SELECT count(*) FROM outbox").item(),
            "data clock": store.frame("SELECT data_clock FROM ledger").item(),
        }


def differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {_shortened(actual.get(name))} instead of {_shortened(expected.get(name))}"
        for name in (*expected, *(set(actual) - set(expected)))
        if expected.get(name) != actual.get(name)
    ]


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"


def delivered(log: EventLog, since: Mapping[TopicPartition, int]) -> set[str]:
    """The positions of the dead letters appended since."""
    positions = dict(since)
    keys: set[str] = set()
    while chunks := log.read(positions, 10_000, 1.0):
        for chunk in chunks:
            keys.update(key.decode() for key in chunk.keys)
            positions[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
        if positions == log.end_positions(list(positions)):
            break
    return keys


def check_complete(log: EventLog, appended: int, expected: Mapping[str, Any]) -> None:
    """Check that the undisturbed run read the whole log and accounts for all of it."""
    ends = log.end_positions(log.partitions(INPUT_TOPICS))
    for partition, end in ends.items():
        account = expected.get(f"account of {partition.topic}/{partition.partition}", asdict(Account()))
        parts = [account[n] for n in ("applied", "repeats", "conflicts", "dead_letters")]
        if account["next_offset"] != end or account["read"] != end or sum(parts) != end:
            raise Unexpected(f"the undisturbed run: {partition} ends at {end}, but its account is {account}")
    if sum(ends.values()) != appended:
        raise Unexpected(f"{appended:,} records were appended, the log holds {sum(ends.values()):,}")


# --- the scenarios


@dataclass(slots=True)
class Tally:
    """`rounds`: databases that were killed repeatedly, then finished; each ends `equal` or `different`."""

    scenario: str
    kills: int = 0
    rounds: int = 0
    equal: int = 0
    different: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Chaos:
    """One log, the state that it must lead to, and how kills are drawn."""

    consumers: Consumers
    log: EventLog
    expected: Mapping[str, Any]
    draw: random.Random
    passings: tuple[int, int] = (1, 8)
    """Range from which the passing of a boundary at which to kill is drawn, anew for each kill."""

    def play(self, scenario: str, kills: int) -> Tally:
        """Kill that many times, in as many rounds as it takes. `fold+commit`: the two in turn on the same database."""
        tally = Tally(scenario)
        while tally.kills < kills and not tally.different:
            self._round(tally, kills)
        return tally

    def _round(self, tally: Tally, kills: int) -> None:
        tally.rounds += 1
        places = tally.scenario.split("+")
        database = self.consumers.folder / f"{tally.scenario}-{tally.rounds}.duckdb"
        create_database(database)
        since = self.log.end_positions(self.log.partitions([DEAD_LETTERS]))
        try:
            while tally.kills < kills:
                run = self._attempt(places[tally.kills % len(places)], database)
                tally.kills += run.killed
                if run.lag == 0 or not (run.killed or run.lag):
                    break
            self.consumers.undisturbed(database, batch_size=5_000)
            problems = differences(self.expected, state(database)) + self._undelivered(since)
        except Unexpected as error:
            problems = [str(error)]
        tally.equal += not problems
        tally.different += bool(problems)
        tally.problems += problems
        if not problems:
            for left in database.parent.glob(database.name + "*"):
                left.unlink()

    def _undelivered(self, since: Mapping[TopicPartition, int]) -> list[str]:
        wanted = {f"{topic}-{partition}-{offset}" for topic, partition, offset, *_ in self.expected["dead letters"]}
        keys = delivered(self.log, since)
        return [f"{DEAD_LETTERS}: {_shortened(sorted(wanted ^ keys))}"] if wanted != keys else []

    def _attempt(self, scenario: str, database: Path) -> Run:
        passings = self.draw.randint(*self.passings)
        if scenario == "close":
            return self.consumers.killed_closing(passings, self.draw.uniform(0, 0.04), database)
        if scenario == "random":
            at_work = self.draw.random() < 0.7
            delay_s = self.draw.uniform(0, 0.8) if at_work else self.draw.uniform(0.1, 1.2)
            return self.consumers.killed_by_clock(delay_s, at_work, database)
        return self.consumers.killed_at(scenario, passings, database)


@contextlib.contextmanager
def prepared(log: LogSettings, folder: Path, events: int, batch_size: int, seed: int) -> Iterator[Chaos]:
    """Fill the log, consume it once undisturbed, and be ready for kills."""
    day = records(events, seed)
    opened = open_log(log, create=True)
    try:
        fill(opened, day)
        consumers = Consumers(log, folder, batch_size)
        reference = folder / "undisturbed.duckdb"
        create_database(reference)
        consumers.undisturbed(reference, batch_size=100_000)
        expected = state(reference)
        check_complete(opened, len(day), expected)
        yield Chaos(consumers, opened, expected, random.Random(seed))
    finally:
        opened.close()


# --- the command


@contextlib.contextmanager
def log_of(kind: str, folder: Path) -> Iterator[LogSettings]:
    """An embedded log in the folder, or a log on a broker of its own, which is removed afterwards."""
    if kind == "embedded":
        yield LogSettings(url=f"sqlite:///{folder / 'log.db'}")
        return
    broker = kafka_broker.session_broker()
    try:
        yield LogSettings(url=f"kafka://{broker.address}", topic_prefix="chaos.")
    finally:
        broker.remove()


def played(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    print(f"\n{kind} log")
    started = time.monotonic()
    tallies = []
    with (
        tempfile.TemporaryDirectory(prefix="coupon-ledger-chaos-") as name,
        log_of(kind, Path(name)) as log,
        prepared(log, Path(name), options.events, options.batch_size, options.seed) as chaos,
    ):
        _print_row("scenario", "kills", "rounds", "equal", "different")
        for scenario in SCENARIOS:
            tally = chaos.play(scenario, -(-options.kills // len(SCENARIOS)))
            tallies.append(tally)
            _print_row(scenario, tally.kills, tally.rounds, tally.equal, tally.different)
            for problem in tally.problems:
                print(f"    {problem}")
    total = {n: sum(getattr(t, n) for t in tallies) for n in ("kills", "rounds", "equal", "different")}
    _print_row("all", *total.values())
    accounts = [value for name, value in chaos.expected.items() if name.startswith("account of ")]
    names = ("read", "applied", "repeats", "conflicts", "dead_letters")
    return {
        **total,
        "seconds": round(time.monotonic() - started),
        "records": {n: sum(a[n] for a in accounts) for n in names},
        "digest": {kind: chaos.expected[f"all: {kind}"] for kind in ("facts", "full")},
        "scenarios": [asdict(t) for t in tallies],
    }


def _print_row(scenario: str, *numbers: object) -> None:
    print(f"{scenario:<10}" + "".join(f"{n:>11}" for n in numbers), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--log", choices=("embedded", "kafka", "both"), default="both")
    parser.add_argument("--kills", type=int, default=200, help="at least this many per log")
    parser.add_argument("--seed", type=int, default=None, help="drawn if not set")
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--batch-size", type=int, default=500)
    options = parser.parse_args()
    # Exit, so that the broker is removed (atexit), and print why.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("chaos: ended by SIGTERM"))
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    kinds = ("embedded", "kafka") if options.log == "both" else (options.log,)
    results = {kind: played(kind, options) for kind in kinds}
    conditions = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed,
        "events": options.events,
        "batch_size": options.batch_size,
    }
    RESULTS.write_text(json.dumps({**conditions, "logs": results}, indent=2) + "\n", encoding="utf-8")
    return 1 if any(r["different"] for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
