"""How fast it is: every figure the median of several runs, beside a row-at-a-time baseline in the same run.

    python -m benchmarks.run [--events 1000000] [--runs 3] [--only NAME] [--only NAME]

Groups: kafka, embedded, append, publish, micro. The events are a seeded sale day (`cli/sources/simulate.py`), the
baseline is `baseline.py`, and the broker is our own, with four partitions a topic. Baselines are slow, so each gets a
shorter log (`--baseline-events`), which favours them: their tables stay small. Results go to standard output and to
`latest.json` beside this file; each figure says what it includes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks import baseline
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.consumers.intake import take_in
from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.columns import decode_columns, encode_columns
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.log import Chunk, EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.publisher import Publisher
from coupon_ledger.ledger.settings import ENVIRONMENT_PREFIX, LogSettings
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, KEY_FIELD
from coupon_ledger.ledger.validity import split_valid
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import digests
from coupon_ledger.projections.live import fold
from tests import kafka_broker

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = Path(__file__).with_name("latest.json")
BATCH: Final = 10_000
CONSUMER_BATCH: Final = 125_000
SEED: Final = 20261111


@dataclass
class Figure:
    """Rates in records per second, one per run. `includes`: what the time covers. `target`: the project's."""

    name: str
    includes: str
    events: int
    rates: list[float]
    target: int | None = None
    baseline: str | None = None
    baseline_events: int = 0
    baseline_rates: list[float] = field(default_factory=list)
    load_before: float = 0.0
    cores_busy_elsewhere: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def baseline_rate(self) -> float | None:
        return statistics.median(self.baseline_rates) if self.baseline_rates else None

    @property
    def ratio(self) -> float | None:
        return self.rate / self.baseline_rate if self.baseline_rate else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"rate": self.rate, "baseline_rate": self.baseline_rate, "ratio": self.ratio}


# --- what is measured


@dataclass
class Bench:
    """The options, a folder for files, and the events, which are made once, when first needed."""

    folder: Path
    events: int
    baseline_events: int
    slow_events: int
    runs: int

    @cached_property
    def frames(self) -> list[tuple[str, pl.DataFrame]]:
        return list(sale_day(World(seed=SEED, events=self.events)))

    @cached_property
    def records(self) -> list[Record]:
        return [record for topic, frame in self.frames for record in encoded(topic, frame)]

    @cached_property
    def short(self) -> list[Record]:
        """A shorter sale day, for the baseline."""
        world = World(seed=SEED, events=self.baseline_events)
        return [record for topic, frame in sale_day(world) for record in encoded(topic, frame)]

    @cached_property
    def dicts(self) -> list[dict[str, Any]]:
        """Coupon events as an upstream system has them: dicts without nulls, instants as datetimes."""
        frame = pl.concat([frame for topic, frame in self.frames if topic == COUPON])[: self.baseline_events]
        rows = frame.iter_rows(named=True)
        return [{"topic": COUPON, **{k: v for k, v in row.items() if v is not None}} for row in rows]

    @cached_property
    def broker(self) -> kafka_broker.Broker:
        return kafka_broker.session_broker()

    def fresh_log(self, kind: str) -> LogSettings:
        """An empty log with topics: a new file, or new topics on the broker."""
        name = f"{kind}{time.monotonic_ns()}"
        if kind == "kafka":
            settings = LogSettings(url=f"kafka://{self.broker.address}", topic_prefix=f"{name}.")
        else:
            settings = LogSettings(url=f"sqlite:///{self.folder / name}.db")
        with opened(settings, create=True) as log:
            log.create_topics()
        return settings

    def close(self) -> None:
        if "broker" in self.__dict__:
            self.broker.remove()


def encoded(topic: str, frame: pl.DataFrame) -> list[Record]:
    keys = frame[KEY_FIELD[topic]].to_list()
    return [Record(topic, k.encode(), v) for k, v in zip(keys, encode_columns(topic, frame), strict=True)]


@contextmanager
def opened(settings: LogSettings, *, create: bool = False) -> Iterator[EventLog]:
    log = open_log(settings, create=create)
    try:
        yield log
    finally:
        log.close()


def append_all(log: EventLog, records: Sequence[Record]) -> None:
    for first in range(0, len(records), BATCH):
        log.append(records[first : first + BATCH])


def timed(work: Callable[..., object], *arguments: object) -> float:
    """Seconds that the work takes; earlier garbage is collected first."""
    gc.collect()
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def each(work: Callable[[Any], object], things: Iterable[Any]) -> None:
    for thing in things:
        work(thing)


# --- from the log to DuckDB


@dataclass
class Process:
    """A finished consumer: its own report, and the process as seen from outside."""

    said: dict[str, Any]
    wall_seconds: float
    peak_mb: int
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return float(self.said["records"] / self.said["seconds"])


def run_process(module: str, log: LogSettings, database: Path, *more: str) -> Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
    arguments = ["--log", log.url, "--topic-prefix", log.topic_prefix, "--database", str(database)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments, "--batch-size", str(CONSUMER_BATCH), *more],
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"{module} ended with exit code {process.returncode}")
    return Process(json.loads(said), wall, usage.ru_maxrss // 1024, usage.ru_utime + usage.ru_stime)


@contextmanager
def fresh_database(folder: Path) -> Iterator[Path]:
    path = folder / f"database{time.monotonic_ns()}.duckdb"
    create_database(path)
    yield path
    for left in folder.glob(path.name + "*"):
        left.unlink()


def coupon_facts(database: Path) -> dict[str, tuple[int, str | None]]:
    """The digests of the tables that the baseline folds too."""
    with open_database(database) as store:
        # The baseline has no rules across coupons.
        store.execute("DELETE FROM violations WHERE scope = 'cross'")
        compared = ("coupon_events", "coupons", "violations")
        return {d.table: (d.rows, d.facts) for d in digests(store) if d.table in compared}


CONSUMED: Final = (
    "a process of its own over records that lie in the log: reading, checksums, decoding, validation, dedupe, fold,"
    " journal, coupons, violations, accounts, offsets, a durable commit per 125,000 records; from the start of `run`"
    " (connecting included) to the last commit"
)


def consumed(bench: Bench, kind: str, target: int) -> list[Figure]:
    long, short = bench.fresh_log(kind), bench.fresh_log(kind)
    for settings, records in ((long, bench.records), (short, bench.short)):
        with opened(settings) as log:
            append_all(log, records)
    figure = Figure(f"{kind} log to DuckDB", CONSUMED, len(bench.records), [], target)
    figure.baseline = "kafka-python/sqlite3 + fastavro, a row at a time, Arrow tables into DuckDB"
    figure.baseline_events = len(bench.short)
    slow = Figure(f"{kind} log to DuckDB (executemany)", "as above", figure.events, figure.rates, None)
    slow.baseline, slow.baseline_events = "the same with executemany into DuckDB", bench.slow_events
    ours, theirs = [], []
    for _ in range(bench.runs):
        with fresh_database(bench.folder) as database:
            ours.append(run_process("benchmarks.consumer_process", long, database))
            size = database.stat().st_size
        with fresh_database(bench.folder) as database:
            theirs.append(run_process("benchmarks.baseline", short, database))
            facts = coupon_facts(database)
        with fresh_database(bench.folder) as database:
            limit = ("--writes", "executemany", "--limit", str(bench.slow_events))
            slow.baseline_rates.append(run_process("benchmarks.baseline", short, database, *limit).rate)
    with fresh_database(bench.folder) as database:
        run_process("benchmarks.consumer_process", short, database)
        if (expected := coupon_facts(database)) != facts:
            raise RuntimeError(f"the baseline came to other facts: {facts} instead of {expected}")
    figure.rates += [p.rate for p in ours]
    figure.baseline_rates = [p.rate for p in theirs]
    figure.more = {
        "whole process, s": statistics.median(p.wall_seconds for p in ours),
        "whole process, events/s": len(bench.records) / statistics.median(p.wall_seconds for p in ours),
        "processor time, s": statistics.median(p.cpu_seconds for p in ours),
        "peak memory, MB": max(p.peak_mb for p in ours),
        "database, MB": size // 1_000_000,
        "baseline: peak memory, MB": max(p.peak_mb for p in theirs),
        "same facts as the baseline": True,
    }
    return [figure, slow, read_alone(bench, kind, long, short)]


def read_alone(bench: Bench, kind: str, long: LogSettings, short: LogSettings) -> Figure:
    figure = Figure(
        f"{kind} log, reading alone", "keys, values, offsets as the log's `read` gives them", len(bench.records), []
    )
    figure.baseline = "kafka-python's poll / sqlite3's rows"
    figure.baseline_events = sum(r.topic == COUPON for r in bench.short)
    for _ in range(bench.runs):
        with opened(long) as log:
            figure.rates.append(figure.events / timed(read_all, log))
        seconds = timed(each, len, baseline.messages_of(short.url, short.topic_prefix))
        figure.baseline_rates.append(figure.baseline_events / seconds)
    return figure


def read_all(log: EventLog) -> list[Chunk]:
    partitions = log.partitions(INPUT_TOPICS)
    ends = log.end_positions(partitions)
    positions, chunks = dict.fromkeys(partitions, 0), []
    while wanted := {p: o for p, o in positions.items() if o < ends[p]}:
        for chunk in log.read(wanted, CONSUMER_BATCH, 1.0):
            positions[next(p for p in wanted if p == (chunk.topic, chunk.partition))] = chunk.next_offset
            chunks.append(chunk)
    return chunks


# --- to the log


def appended(bench: Bench, kind: str, target: int | None, frames_too: bool) -> list[Figure]:
    """Append already encoded records and, if `frames_too`, frames."""
    plain = Figure(
        f"append to the {kind} log, encoded",
        f"`append` of encoded records, {BATCH:,} a time, each durable and acknowledged before the next",
        len(bench.records),
        [],
        target,
        "the client alone, a record at a time, as durable, in the same batches",
        len(bench.short),
    )
    whole = Figure(
        f"append to the {kind} log, from frames",
        "columns to Avro messages, records, and the append of 50,000 a time",
        len(bench.records),
        [],
        None,
        "rows of the frames to dicts, checked, fastavro's schemaless_writer, and the same append",
        bench.baseline_events,
    )
    for _ in range(bench.runs):
        with opened(bench.fresh_log(kind)) as log:
            plain.rates.append(plain.events / timed(append_all, log, bench.records))
        theirs = bench.fresh_log(kind)
        seconds = timed(baseline.append, theirs.url, theirs.topic_prefix, bench.short, BATCH)
        plain.baseline_rates.append(plain.baseline_events / seconds)
        if frames_too:
            with opened(bench.fresh_log(kind)) as log:
                whole.rates.append(whole.events / timed(append_frames, log, bench.frames))
            whole.baseline_rates.append(_baseline_from_frames(bench, kind))
    return [plain, whole] if frames_too else [plain]


def append_frames(log: EventLog, frames: Sequence[tuple[str, pl.DataFrame]]) -> None:
    for topic, frame in frames:
        log.append(encoded(topic, frame))


def _baseline_from_frames(bench: Bench, kind: str) -> float:
    frame = pl.concat([frame for topic, frame in bench.frames if topic == COUPON])[: bench.baseline_events]
    settings = bench.fresh_log(kind)
    records = baseline.checked(frame.iter_rows(named=True))
    return frame.height / timed(baseline.append, settings.url, settings.topic_prefix, records, BATCH)


def published(bench: Bench, kind: str) -> Figure:
    figure = Figure(
        f"publish to the {kind} log, dicts",
        f"`Publisher.publish` of dicts: models validated, encoded, appended durably {BATCH:,} a time",
        len(bench.dicts),
        [],
        None,
        "dicts checked by hand, fastavro's schemaless_writer, the client alone, as durable",
        len(bench.dicts),
    )
    for _ in range(bench.runs):
        with opened(bench.fresh_log(kind)) as log:
            figure.rates.append(figure.events / timed(publish_all, log, bench.dicts))
        theirs = bench.fresh_log(kind)
        seconds = timed(baseline.append, theirs.url, theirs.topic_prefix, baseline.checked(bench.dicts), BATCH)
        figure.baseline_rates.append(figure.baseline_events / seconds)
    return figure


def publish_all(log: EventLog, events: Sequence[Mapping[str, Any]]) -> None:
    publisher = Publisher(log, batch_size=BATCH)
    for event in events:
        publisher.publish(event)
    publisher.flush()
    assert publisher.report.complete and publisher.report.accepted == len(events)


# --- one step alone


def micro(bench: Bench) -> list[Figure]:
    values = [r.value for r in bench.records if r.topic == COUPON]
    batches = [values[i : i + CONSUMER_BATCH] for i in range(0, len(values), CONSUMER_BATCH)]
    few = values[: bench.baseline_events]
    frames = [decode_columns(batch)[0][0].frame for batch in batches]
    rows = [baseline.decode(value) for value in few]
    decode = Figure(
        "decode alone",
        f"messages to columns, {CONSUMER_BATCH:,} a time",
        len(values),
        [],
        None,
        "fastavro's schemaless_reader",
        len(few),
    )
    validate = Figure(
        "validate alone", "`split_valid` of columns", len(values), [], None, "dicts checked by hand", len(few)
    )
    for _ in range(bench.runs):
        decode.rates.append(len(values) / timed(each, decode_columns, batches))
        decode.baseline_rates.append(len(few) / timed(each, baseline.decode, few))
        validate.rates.append(len(values) / timed(each, partial(split_valid, COUPON), frames))
        validate.baseline_rates.append(len(few) / timed(each, baseline.check, rows))
    return [decode, validate, *folds(bench, batches, rows)]


def folds(bench: Bench, batches: list[list[bytes]], rows: list[dict[str, Any]]) -> list[Figure]:
    """The columnar fold beside the reference and the baseline's, on distinct events in canonical order."""
    prepared = [_foldable(batch) for batch in batches]
    events = sum(e.height for _, e in prepared)
    distinct = list({row["event_id"]: row for row in rows}.values())
    distinct.sort(key=lambda r: r["occurred_at"])
    deliveries = _deliveries(bench)
    delivered = sum(map(len, deliveries))
    columnar = Figure(
        "fold alone, beside the reference",
        f"`fold` of distinct events in canonical order, {CONSUMER_BATCH:,} a time, every coupon from the start",
        events,
        [],
        None,
        "`ledger.lifecycle.fold`, the readable reference (sorts and tells repeats itself)",
        delivered,
    )
    plain = Figure(
        "fold alone, beside the baseline's",
        "as above",
        events,
        columnar.rates,
        None,
        "the baseline's `evolve` on decoded dicts",
        len(distinct),
    )
    for _ in range(bench.runs):
        columnar.rates.append(events / timed(each, lambda p: fold.fold(*p), prepared))
        columnar.baseline_rates.append(delivered / timed(each, lifecycle.fold, deliveries))
        plain.baseline_rates.append(len(distinct) / timed(_evolve_all, distinct))
    return [columnar, plain]


def _foldable(values: list[bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Empty rows, and the batch's events in the form that the columnar fold takes."""
    n = len(values)
    places = pl.Series(range(n), dtype=pl.Int64).to_numpy()
    chunk = Chunk(COUPON, 0, places, places, [b""] * n, values, n)
    batch = take_in([chunk]).events[COUPON]
    events = batch.events.unique(["entity", "event_id"], keep="first", maintain_order=True)
    rows = pl.DataFrame(schema=fold.ROW_SCHEMA).clear(batch.keys.height)
    return rows.with_columns(pl.col("state", "resting").fill_null(0)), events.rename({"entity": "coupon"})


def _deliveries(bench: Bench) -> list[list[Delivery]]:
    """Deliveries of the first coupon events, grouped by coupon."""
    frame = pl.concat([frame for topic, frame in bench.frames if topic == COUPON])[: bench.baseline_events]
    by_coupon: dict[str, list[Delivery]] = {}
    for i, row in enumerate(frame.iter_rows(named=True)):
        by_coupon.setdefault(row["coupon_id"], []).append(Delivery(row, i, 0, i))
    return list(by_coupon.values())


def _evolve_all(rows: list[dict[str, Any]]) -> None:
    coupons: dict[str, baseline.Coupon] = {}
    for row in rows:
        coupon_id = row["coupon_id"]
        coupon = coupons.get(coupon_id)
        if coupon is None:
            coupon = coupons[coupon_id] = baseline.Coupon(coupon_id)
        baseline.evolve(coupon, row)


# --- who else was at work


class Elsewhere:
    """Processor time used by processes other than ours and the broker since this was created (Linux only)."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._started = time.monotonic()
        self._before = self._seconds()

    def cores(self) -> float | None:
        """Cores that they kept busy on average; None if unknown."""
        now = self._seconds()
        if now is None or self._before is None:
            return None
        return round(max(0.0, now - self._before) / (time.monotonic() - self._started), 2)

    def _seconds(self) -> float | None:
        try:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(
                int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
            )
        except OSError:
            return None
        ours = os.times()
        tick = os.sysconf("SC_CLK_TCK")
        everyone = (user + nice + system + irq + softirq + steal) / tick
        return everyone - (ours.user + ours.system + ours.children_user + ours.children_system) - self._broker() / tick

    def _broker(self) -> int:
        broker = self._bench.__dict__.get("broker")
        if not isinstance(broker, kafka_broker.JavaBroker):
            return 0
        return sum(map(int, Path(f"/proc/{broker.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


# --- all of it

GROUPS: Final[dict[str, Callable[[Bench], list[Figure]]]] = {
    "kafka": lambda bench: consumed(bench, "kafka", 100_000),
    "embedded": lambda bench: consumed(bench, "embedded", 150_000),
    "append": lambda bench: appended(bench, "embedded", 200_000, frames_too=True),
    "publish": lambda bench: [
        *appended(bench, "kafka", 40_000, frames_too=False),
        published(bench, "kafka"),
        published(bench, "embedded"),
    ],
    "micro": micro,
}


def conditions(bench: Bench) -> dict[str, Any]:
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [
            line.partition(":")[2].strip() for line in information.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    pom = kafka_broker.POM.read_text()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": pom.partition("kafka_2.13</artifactId>")[2].partition("<version>")[2].partition("<")[0],
        **{name: version(name) for name in ("duckdb", "polars", "pyarrow", "kafka-python", "fastavro", "numpy")},
        "load_before": os.getloadavg()[0],
        "events": bench.events,
        "baseline_events": bench.baseline_events,
        "slow_baseline_events": bench.slow_events,
        "runs": bench.runs,
        "seed": SEED,
    }


def print_figures(figures: Sequence[Figure]) -> None:
    print(f"\n{'figure':<40}{'events':>11}{'events/s':>11}{'target':>10}{'baseline':>10}{'ratio':>8}   runs")
    for f in figures:
        beside = f"{f.baseline_rate:>10,.0f}{f.ratio:>8.1f}" if f.baseline_rate else " " * 18
        target = f"{f.target:>10,}" if f.target else " " * 10
        runs = " ".join(f"{r:,.0f}" for r in f.rates)
        print(f"{f.name:<40}{f.events:>11,}{f.rate:>11,.0f}{target}{beside}   {runs}")
        for name, value in f.more.items():
            print(f"    {name}: {value:,.1f}" if isinstance(value, float) else f"    {name}: {value}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--baseline-events", type=int, default=100_000)
    parser.add_argument("--slow-baseline-events", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=GROUPS, action="append", metavar="GROUP", help=", ".join(GROUPS))
    options = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)
    # Exit, so that the broker is removed (atexit).
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("benchmarks: ended by SIGTERM"))
    folder = Path(tempfile.mkdtemp(prefix="coupon-ledger-bench-"))
    bench = Bench(folder, options.events, options.baseline_events, options.slow_baseline_events, options.runs)
    all_figures: list[Figure] = []
    try:
        environment = conditions(bench)
        print("\n".join(f"{name}: {value}" for name, value in environment.items()))
        for name in options.only or GROUPS:
            load, elsewhere = os.getloadavg()[0], Elsewhere(bench)
            figures = GROUPS[name](bench)
            for figure in figures:
                figure.load_before, figure.cores_busy_elsewhere = load, elsewhere.cores()
            print_figures(figures)
            print(f"load before {load:.2f}, cores busy elsewhere meanwhile {elsewhere.cores()}")
            sys.stdout.flush()
            all_figures += figures
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
    results = {"conditions": environment, "figures": [f.as_json() for f in all_figures]}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
