"""What 200 alert rules cost the consumer, how soon an alert comes, and how long a backtest takes.

    python -m benchmarks.alert_speed rules [--events 1000000] [--rules 200]
    python -m benchmarks.alert_speed delay [--rate 5000] [--seconds 60]
    python -m benchmarks.alert_speed backtest [--events 10000000]

`rules`: `coupon-ledger consume` over a sale day in the embedded log, without alerts, with the default rules, and with
200 rules, of which 100 are velocity rules. Processor time and peak memory of the process.
`delay`: `consume --follow` with the default rules, while another process appends ordinary claims at a steady rate and,
once a second, a farm: five users on one device. The first ten seconds, while the consumer starts, do not count. From
the append of the farm's last claim (it is durable) to the alert in `coupon.alerts`, by the clock of the log.
`backtest`: `alerts backtest` over the real retail year, and over a sale day, with the default rules.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.alert_stream import on_the_wire
from benchmarks.run import encoded
from coupon_ledger.ledger import alert_events
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts.rules_file import load

COMMAND: Final = (sys.executable, "-m", "coupon_ledger.cli")
_STARTING_S: Final = 10
_CLAIMS: Final = {"kind": "velocity", "events": ["claimed"]}


def rules_file(folder: Path, number: int) -> Path:
    """A file with the defaults and further rules of the streamed kinds and on violations, `number` in all: of these,
    half are velocity rules. Thresholds are those of rules that fire rarely."""
    defaults = load(None).rule_set.in_force()
    velocity = sum(rule.expr.kind == "velocity" for rule in defaults)
    rules = list(itertools.islice(_velocity(), number // 2 - velocity))
    rules += itertools.islice(_others(), number - len(defaults) - len(rules))
    for index, expr in enumerate(rules):
        expr["alert"] = f"more_{index}"
    groups = [{"name": "more", "rules": [{"alert": r.pop("alert"), "expr": r} for r in rules]}]
    path = folder / "rules.yaml"
    path.write_text(json.dumps({"groups": groups}), encoding="utf-8")  # JSON is YAML
    loaded = load(path)
    assert not loaded.problems, loaded.problems[0]
    assert len(loaded.rule_set.in_force()) == number
    return path


def _velocity() -> Iterator[dict[str, Any]]:
    keys = (["device_id"], ["ip"], ["phone_prefix"], ["user_id"], ["ip", "campaign_id"], ["device_id", "campaign_id"])
    windows = {"1m": 200, "10m": 400, "1h": 800, "6h": 1_600, "1d": 3_200}
    for window, by, (events, distinct) in itertools.product(
        windows, keys, ((["claimed"], "user_id"), (["claimed"], None), (["used"], None), (["claimed"], "campaign_id"))
    ):
        if distinct not in by:
            expr = {"kind": "velocity", "events": events, "by": by, "window": window, "at_least": windows[window]}
            yield expr | ({"distinct": distinct} if distinct else {})


def _others() -> Iterator[dict[str, Any]]:
    codes = ("used_when_used", "orphan_use", "over_issue", "over_user_limit", "discount_above_value", "wrong_user")
    for number in itertools.count():
        yield {"kind": "concentration", "events": ["claimed"], "of": ("device_id", "ip")[number % 2],
               "by": ["campaign_id"], "top": 3 + number, "share": 0.6, "at_least": 500, "window": "1h"}  # fmt: skip
        yield {"kind": "threshold", "metric": "claimed", "by": ["campaign"], "window": f"{number % 5 + 1}h",
               "against": "last_day", "relative": 3.0, "absolute": 1_000, "at_least": 1_000}  # fmt: skip
        yield {"kind": "budget", "window": f"{number % 5 + 1}h", "share": 0.9}
        yield {"kind": "stock", "window": f"{number % 5 + 1}h", "sold_out_within": "5m"}
        yield {"kind": "violation", "codes": [codes[number % 6]], "by": ["campaign"], "at_least": 1_000 + number}
        yield {"kind": "metric", "metric": ("claimed", "used")[number % 2], "by": ["channel"]}
        yield {"kind": "linked", "events": ["claimed"], "over": ["device_id", "phone_prefix"], "users": 40 + number,
               "at_least": 100, "window": "1d"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command did: seconds by the wall clock, of processor time, and peak memory in MB."""

    seconds: float
    cpu: float
    peak_mb: int
    said: str

    @property
    def figures(self) -> str:
        return f"{self.seconds:.1f} s, {self.cpu:.1f} s of processor time, {self.peak_mb:,} MB"


def ran(folder: Path, *arguments: str) -> Ran:
    started = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=_environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with exit code {process.returncode}: {said}")
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(time.perf_counter() - started, cpu, usage.ru_maxrss // 1024, said)


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("COUPON_LEDGER_")}


def rules(folder: Path, events: int, number: int) -> None:
    ran(folder, "init")
    ran(folder, "simulate", "--events", str(events), "--orders", "--seed", "7")
    path = rules_file(folder, number)
    first: Ran | None = None
    for what, options in (
        ("without alerts", ("--no-alerts",)),
        ("default rules", ()),
        (f"{number} rules", ("--alert-rules", str(path))),
    ):
        for old in folder.glob("coupon-ledger.duckdb*"):
            old.unlink()
        ran(folder, "init")
        done = ran(folder, "consume", *options)
        first = first or done
        rate, share = events / done.cpu, first.cpu / done.cpu
        print(f"{what:16} {rate:10,.0f} events/s of processor time  {share:5.0%}  {done.figures}", flush=True)
    print(ran(folder, "alerts", "list", "--by", "rule", "--state", "all").said)


def delay(folder: Path, rate: int, seconds: int) -> None:
    ran(folder, "init")
    consumer = subprocess.Popen(
        [*COMMAND, "consume", "--follow"],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = LogSettings(url=f"sqlite:///{folder / 'coupon-ledger.log.db'}")
    log = open_log(settings)
    try:
        _publish(log, rate, _STARTING_S)
        appended = _publish(log, rate, seconds, first=_STARTING_S * 10)
        time.sleep(10)
        recorded, _ = alert_events.read(log)
    finally:
        consumer.send_signal(signal.SIGTERM)
        consumer.wait(60)
        log.close()
    fired = {
        e.event.labels["device_id"]: e.recorded_at.astimezone(UTC)
        for e in reversed(recorded)
        if e.event.type == "fired" and e.event.rule == "device_farm"
    }
    delays = sorted((fired[d] - at).total_seconds() for d, at in appended.items() if d in fired)
    late = delays[min(len(delays) - 1, int(0.99 * len(delays)))]
    print(
        f"{rate:,} events/s for {seconds} s: {len(delays)} of {len(appended)} farms told; delay"
        f" {statistics.median(delays):.2f} s median, {late:.2f} s at the 99th percentile, {delays[-1]:.2f} s at most"
    )


def _publish(log: Any, rate: int, seconds: int, first: int = 0) -> dict[str, datetime]:
    """Append claims at a steady rate, ten times a second; `first`: the number of the first time. Returns when the last
    claim of each farm was appended."""
    appended: dict[str, datetime] = {}
    started, number = time.perf_counter(), first * rate
    for step in range(first, first + seconds * 10):
        batch = _claims(number, rate // 10)
        number += rate // 10
        device = f"farm-{step}"
        if step % 10 == 5:
            batch += _claims(number, 5, device)
            number += 5
        log.append(batch)
        if step % 10 == 5:
            appended[device] = datetime.now(UTC)
        time.sleep(max(0.0, started + (step - first + 1) / 10 - time.perf_counter()))
    behind = time.perf_counter() - started - seconds
    if behind > 1:
        print(
            f"the publisher was {behind:.1f} s behind: the rate was {rate * seconds / (seconds + behind):,.0f} events/s"
        )
    return appended


def _claims(first: int, number: int, device: str | None = None) -> list[Record]:
    ids = pl.int_range(first, first + number, eager=True).cast(pl.String)
    frame = pl.DataFrame(
        {
            "event_id": "e-" + ids,
            "type": "claimed",
            "source": "app",
            "coupon_id": "c-" + ids,
            "user_id": "u-" + ids,
            "campaign_id": "k-" + pl.Series([str(n % 20) for n in range(number)]),
            "coupon_type": "cash",
            "face_value_minor": 1_000,
            "currency": "CNY",
            "channel": "app",
            "device_id": "d-" + ids if device is None else pl.Series([device] * number),
            "ip": "10.0.0." + ids,
            "occurred_at": datetime.now(UTC),
        }
    )
    return encoded(COUPON, on_the_wire(COUPON, frame))


def backtest(folder: Path, events: int) -> None:
    for what, fill in (
        ("the retail year", ("import", "complete-journey")),
        (f"a sale day of {events:,} events", ("simulate", "--events", str(events), "--orders", "--seed", "7")),
    ):
        for old in folder.glob("coupon-ledger.*"):
            old.unlink()
        ran(folder, "init")
        ran(folder, *fill)
        ran(folder, "consume", "--no-alerts")
        done = ran(folder, "alerts", "backtest", "--from", "2016-01-01", "--output", "json")
        found = sum(row["alerts"] for row in json.loads(done.said))
        print(f"{what}: {done.figures}; {found:,} alerts", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rules", "delay", "backtest"))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        match options.what:
            case "rules":
                rules(Path(name), options.events, options.rules)
            case "delay":
                delay(Path(name), options.rate, options.seconds)
            case _:
                backtest(Path(name), options.events)


if __name__ == "__main__":
    main()
