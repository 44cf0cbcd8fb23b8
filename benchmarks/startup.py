"""How long a command takes until it answers: wall time of whole processes, the median of many.

    python -m benchmarks.startup [--runs 21]

`state` opens a small database; the other commands open nothing. `python -X importtime -m cli --help` says which import
costs what. The tests guard the cause (`tests/test_packaging.py`: help loads nothing heavy), not the time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

TARGET_MS: Final = 300
COMMAND: Final = Path(sys.executable).with_name("coupon-ledger")
EXAMPLE: Final = Path(__file__).parent.parent / "docs" / "example.ndjson"
ANSWERS: Final = (("--version",), ("--help",), ("publish", "--help"), ("config",), ("state", "c-1"))


def elapsed_ms(*arguments: str) -> float:
    begun = time.perf_counter()
    subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-startup-") as folder:
        os.chdir(folder)
        for arguments in (("init",), ("publish", str(EXAMPLE)), ("consume",)):
            subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
        print(f"load before {os.getloadavg()[0]:.2f}; target of --version and --help: {TARGET_MS} ms")
        print(f"{'command':<20}{'median ms':>10}{'best':>8}{'worst':>8}")
        for arguments in ANSWERS:
            times = [elapsed_ms(*arguments) for _ in range(runs)]
            cells = f"{statistics.median(times):>10.0f}{min(times):>8.0f}{max(times):>8.0f}"
            print(f"{' '.join(arguments):<20}{cells}")
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
