"""A rebuild in a process of its own, killed at one step: `python -m tests.rebuild_process fold:3`.

Log and database come from the environment. The steps are those of consuming and of `owner.take_place`,
`built` and `compared`.
"""

from __future__ import annotations

import sys

from benchmarks.consumer_process import Fuse
from coupon_ledger.api.client import asking
from coupon_ledger.consumers.owner import take_place
from coupon_ledger.consumers.rebuild import LiveDatabase, Rebuild
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import Settings


def main() -> None:
    step, _, passings = sys.argv[1].partition(":")
    fuse = Fuse(step, int(passings or 1))
    settings = Settings.load({})
    log = open_log(settings.log)
    live = LiveDatabase(settings.database, lambda: asking(settings.database))
    with Rebuild(live, log, 500, at_boundary=fuse) as run:
        run.build()
        fuse("built")
        run.compare()
        fuse("compared")
    take_place(settings.database, log, 500, back=False, reached=fuse)


if __name__ == "__main__":
    main()
