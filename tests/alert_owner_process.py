"""An owner that works with alerts, in a process of its own, killed at one step:
`python -m tests.alert_owner_process FOLDER "alerts decided:2"`.

The steps are those of `AlertWork`. Messages go into a file, as they would into the queue.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.consumer_process import Fuse
from coupon_ledger.delivery.posting import dumped, loaded
from coupon_ledger.ledger.alert_routing import Message
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.projections.alerts.rules import Rule
from tests.alert_owner import Box, Place


class FileBox(Box):
    """Messages in a file, one a line."""

    def __init__(self, file: Path, *channels: str) -> None:
        super().__init__(*channels)
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.taken = {message.message_id: message for message in map(loaded, lines)}

    def put(self, messages: Sequence[Message], alerts: Mapping[str, Alert], rules: Mapping[str, Rule]) -> None:
        super().put(messages, alerts, rules)
        self._file.write_text("".join(dumped(m) + "\n" for m in self.taken.values()), encoding="utf-8")


def main() -> None:
    folder, kill = Path(sys.argv[1]), sys.argv[2]
    step, _, passings = kill.rpartition(":")
    place = Place(folder)
    with closing(place.log):
        place.run(
            messages=FileBox(folder / "messages.txt", "pager"), at_boundary=Fuse(step, int(passings)), batch_size=2
        )


if __name__ == "__main__":
    main()
