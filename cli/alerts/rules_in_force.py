"""The rules in force beside those of the rules file: the consumer may not have read the file yet, or not be able to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.tables import warn
from coupon_ledger.ledger.errors import LedgerError, StoreNotInitialised
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import of_error
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.projections.alerts.rules import Rule
    from coupon_ledger.projections.alerts.rules_file import Loaded

AS_FILED: Final = "as_filed"
"""In force as the file has it."""
AS_BEFORE: Final = "as_before"
"""In force as it was, since the file has a mistake about it."""
OTHERWISE: Final = "other_version"
"""In force in another version than that of the file."""
NO_LONGER_FILED: Final = "not_in_file"
"""In force, while the file has it no more or switches it off."""
NOT_YET: Final = "not_in_force"
SWITCHED_OFF: Final = "switched_off"
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """A rule with one of the states above. `rule`: as it judges now or, if it is not in force, as the file has it.
    `since`: it judges what was recorded after this instant (None: all, or it judges nothing)."""

    rule: Rule
    state: str
    since: datetime | None = None


def rules_in_force(settings: Settings, output: str) -> dict[str, Standing]:
    """By name, the rules in force as the database has them; none if there is no database yet. If it cannot be read, a
    warning says why."""
    from coupon_ledger.projections.alerts.rules import Rule

    try:
        with answered(settings, output, "alert-rules") as answer:
            rows = [row for frame in answer.frames for row in frame.iter_rows(named=True)]
    except StoreNotInitialised:
        return {}
    except LedgerError as error:
        warn("which rules are in force is not known: {why}", why=of_error(error))
        return {}
    rules = [Rule.model_validate(json.loads(row["content"])) for row in rows]
    return {rule.name: Standing(rule, AS_FILED, row["in_force_since"]) for rule, row in zip(rules, rows, strict=True)}


def beside_the_file(loaded: Loaded, current: Mapping[str, Standing]) -> list[Standing]:
    """All rules of the file and in force, those of the file first, in its order. `current`: the rules in force."""
    from coupon_ledger.consumers.alerts.rules import staying

    stay = staying(loaded, current.keys())
    known = loaded.readable or not current
    filed = {rule.name: rule for rule in loaded.rule_set.rules if known or rule.name in current}
    listed = [_standing(filed.get(name), current.get(name), name in stay) for name in {**filed, **current}]
    return [standing for standing in listed if standing is not None]


def _standing(filed: Rule | None, known: Standing | None, stays: bool) -> Standing | None:
    if known is None:
        return None if filed is None else Standing(filed, NOT_YET if filed.enabled else SWITCHED_OFF)
    if stays:
        state = AS_BEFORE
    elif filed is None or not filed.enabled:
        state = NO_LONGER_FILED
    else:
        state = AS_FILED if filed.version == known.rule.version else OTHERWISE
    return Standing(known.rule, state, known.since)


def differences(loaded: Loaded, listed: Sequence[Standing], *, used: bool) -> Iterator[str]:
    """What people should know of rules that are not in force as the file has them. `used`: whether `consume` puts the
    rules of the file in force, as the setting alert-rules says."""
    names = {state: [one.rule.name for one in listed if one.state == state] for state in _SAID}
    in_force = any(one.since is not None or one.state not in (NOT_YET, SWITCHED_OFF) for one in listed)
    if not loaded.readable and in_force:
        yield say("the rules file cannot be read, so the rules in force go on as they were until it is mended")
        return
    if not in_force:
        yield say("no rule is in force yet")
    for state, template in _SAID.items():
        if names[state] and (in_force or state != NOT_YET):
            more = len(names[state]) - _NAMED
            yield say(template, rules=[*names[state][:_NAMED], *(["…"] if more > 0 else [])])
    if not used:
        yield say("the setting alert-rules is none, so `coupon-ledger consume` leaves the rules in force as they are")
    elif any(names[state] for state in (OTHERWISE, NO_LONGER_FILED, NOT_YET)):
        yield say("`coupon-ledger consume` puts in force what the file says, within seconds while it runs")


_SAID: Final = {
    AS_BEFORE: "in force as before, since the file has a mistake about them or where they may stand: {rules}",
    OTHERWISE: "in force in another version than that of the file: {rules}",
    NO_LONGER_FILED: "in force, while the file has them no more or switches them off: {rules}",
    NOT_YET: "in the file, and not in force yet: {rules}",
}
