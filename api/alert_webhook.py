"""The webhook of an action: its channel, and the message that is sent to it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.alerts import key_of, what_happened
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import View, showing, view

if TYPE_CHECKING:
    from pathlib import Path

    from coupon_ledger.delivery.channels import Channel
    from coupon_ledger.delivery.messages import AlertMessage


def channel_of(rules: Path | None, name: str) -> Channel:
    """The channel of this name in the file `rules`. Raises `CommandRefused` if there is none, or it is unusable."""
    from coupon_ledger.delivery.channels import read
    from coupon_ledger.projections.alerts.rules_file import load

    loaded = load(rules)
    known = sorted(loaded.channels)
    if name not in known:
        if known:
            raise CommandRefused(note("no channel {name} in the rules file; there are {known}", name=name, known=known))
        raise CommandRefused(
            note("no channel {name}: the rules file has none; write it under channels, and name the file with"
                 " --alert-rules", name=name)
        )  # fmt: skip
    channels, problems = read({name: loaded.channels[name]}, loaded.channel_lines, file=loaded.file)
    if name not in channels:
        raise CommandRefused(problems[0].note())
    return channels[name]


def message_of(row: Row) -> AlertMessage:
    """The message about an alert, as its action sends it. `row`: of the answer to the question `alert`."""
    from coupon_ledger.delivery.messages import AlertMessage

    summary = {}
    for lang in ("en", "zh"):
        with showing(View(lang, view().zone)):
            summary[lang] = what_happened(row, ())[0]
    return AlertMessage(
        key=f"{row['alert_id']}/act",
        alert_id=row["alert_id"],
        rule=row["rule"],
        severity=row["severity"],
        kind="firing",
        summary=summary,
        since=row["opened_at"],
        keys=key_of(row),
        value=row["measured"],
        threshold=row["threshold"],
        money_minor=row["money_minor"],
        currency=row["currency"],
    )


def send(channel: Channel, message: AlertMessage) -> None:
    """Send the message at once. Raises `CommandRefused` if the channel does not accept it."""
    from coupon_ledger.delivery.deliverer import job_of
    from coupon_ledger.delivery.sending import SendingProcess

    process = SendingProcess()
    try:
        outcome = process.send(job_of(channel, message))
    finally:
        process.close()
    if outcome.result != "sent":
        raise CommandRefused(
            note("channel {channel}: the message was not accepted ({why}); nothing was recorded, try again",
                 channel=channel.name, why=channel.mask(outcome.reason))
        )  # fmt: skip
