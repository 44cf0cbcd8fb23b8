"""Routes through which people take alerts, give them away, close and silence them, and act on them.

Who does it is the caller. An answer comes when what was done is durable in `coupon.alerts`; its `wait_for` lets
the next question see it. If somebody else was first, the answer is 409, and says who and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.api import alert_actions
from coupon_ledger.api.alert_webhook import channel_of, message_of, send
from coupon_ledger.api.service.callers import Caller
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.api.service.publishing import wait_for
from coupon_ledger.api.service.requests import Body, Name, Why, answer, aware, described, taken
from coupon_ledger.consumers.alerts.actions import Done
from coupon_ledger.consumers.alerts.desk import Desk, course_of
from coupon_ledger.consumers.log_identity import of_source, open_log_of, refuse
from coupon_ledger.ledger import alert_commands
from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_missed import ReportMissed
from coupon_ledger.ledger.alert_silences import Matcher, Silence, Unsilence
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import LogError, UnknownRule
from coupon_ledger.ledger.settings import LogSettings

_T = TypeVar("_T")
_Minor = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1, description="In the currency's minor unit.")]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")]
_WRITTEN: Final = {"operator": "the caller's name", "assignee": "assignee", "note": "why"}


class Acknowledge(Body):
    until: Annotated[
        datetime | None, Field(description="When you expect to have settled it; until then, messages about it stop.")
    ] = None
    why: Why | None = None
    take_over: Annotated[bool, Field(description="Take it although somebody else has taken it.")] = False


class Assign(Body):
    assignee: Annotated[Name, Field(description="Who looks after the alert from now on.")]
    why: Why | None = None


class Note(Body):
    text: Why


class Resolve(Body):
    outcome: Annotated[Literal["true", "false", "unknown"], Field(description="Whether the alert was right.")]
    saved_minor: _Minor | None = None
    currency: _Currency | None = None
    why: Why | None = None
    correct: Annotated[bool, Field(description="Say so although somebody else said otherwise.")] = False


class Act(Body):
    dry_run: Annotated[bool, Field(description="Only say what the action would do.")] = True
    action: Annotated[
        Literal["unpublish_campaign", "revoke_coupons", "webhook"] | None,
        Field(description="Which action. [default: that of the rule]"),
    ] = None
    campaign: Name | None = None
    channel: Name | None = None
    why: Why | None = None


class NewSilence(Body):
    matchers: Annotated[
        list[str],
        Field(
            max_length=50,
            description="Texts such as `rule=device_farm` or `campaign!=8`; `*` stands for any characters.",
        ),
    ] = Field(default_factory=list)
    alert: Annotated[Name | None, Field(description="Silence this alert, and later ones of its rule and key.")] = None
    until: datetime
    why: Why


class Missed(Body):
    rule: Name
    since: Annotated[datetime, Field(description="When it began, by the data's clock.")]
    until: datetime | None = None
    key: Annotated[dict[str, str], Field(max_length=20)] = Field(default_factory=dict)
    money_minor: _Minor | None = None
    currency: _Currency | None = None
    why: Why | None = None
    withdraw: Annotated[bool, Field(description="The report was wrong; it counts no longer.")] = False


class Alerting:
    """Does what callers want with one desk, in one thread. `rules`: the file with alert rules, for channels."""

    def __init__(self, link: OwnerLink, log: LogSettings, rules: Path | None) -> None:
        self._link = link
        self._settings = log
        self._rules = rules
        self._desk: Desk | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="alert desk")

    def close(self) -> None:
        """Finish what was begun. May take as long as an append."""
        self._thread.submit(self._drop)
        self._thread.shutdown()

    async def _with_desk(self, work: Callable[[Desk], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[Desk], _T]) -> _T:
        try:
            desk = self._desk = self._desk or self._opened()
            desk.read_on()
            return work(desk)
        except LogError:
            self._drop()
            raise

    def _opened(self) -> Desk:
        """Raises `LogReplaced` if the database was filled from another log."""
        known = of_source(self._link.remote())
        log = open_log_of(self._settings, known, self._link.database)
        try:
            refuse(known, log, self._link.database)
        except BaseException:
            log.close()
            raise
        return Desk(log, written=_WRITTEN)

    def _drop(self) -> None:
        desk, self._desk = self._desk, None
        if desk is not None:
            desk.log.close()

    # ── Routes ───────────────────────────────────────────────────────────────────────────────────────────────

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/v1/alerts", tags=["alerts"])

        @router.post("/silences", **described(NewSilence, _SILENCE, _SILENCED, status=201))
        async def silence(request: Request) -> Response:
            """Hold back messages about alerts that satisfy every matcher, until an instant."""
            caller, body = await taken(request, "act", NewSilence)
            return answer(await self._with_desk(lambda desk: _silence(desk, caller, body)), 201)

        @router.delete("/silences/{silence}", **described(Body, {}, _SILENCED))
        async def unsilence(silence: str, request: Request) -> Response:
            """End a silence before its time."""
            caller, _ = await taken(request, "act", Body)
            return answer(await self._with_desk(lambda desk: _unsilence(desk, caller, silence)))

        @router.post("/missed", **described(Missed, _MISSED, _REPLY, status=201))
        async def missed(request: Request) -> Response:
            """Report something that a rule should have alerted on, but did not."""
            caller, body = await taken(request, "act", Missed)
            known = await self._link.run(lambda remote: _rules_of(remote.ask("alert-rules", versions=True)))
            if body.rule not in known:
                raise UnknownRule(f"no alert rule {body.rule}; the question alert-rules lists them")
            return answer(await self._with_desk(lambda desk: _report_missed(desk, caller, body)), 201)

        @router.post("/{alert}/acknowledge", **described(Acknowledge, {"until": _UNTIL}, _REPLY))
        async def acknowledge(alert: str, request: Request) -> Response:
            """Take an alert: the caller looks after it, and messages about it stop."""
            caller, body = await taken(request, "act", Acknowledge)
            return answer(await self._with_desk(lambda desk: _acknowledge(desk, caller, alert, body)))

        @router.post("/{alert}/assign", **described(Assign, {"assignee": "li", "why": "on duty tonight"}, _REPLY))
        async def assign(alert: str, request: Request) -> Response:
            """Assign an alert to a person, who owns it from now on."""
            caller, body = await taken(request, "act", Assign)
            return answer(await self._with_desk(lambda desk: _assign(desk, caller, alert, body)))

        @router.post("/{alert}/note", **described(Note, {"text": "it is their test device"}, _REPLY))
        async def note(alert: str, request: Request) -> Response:
            """Write a note beside an alert, open or closed."""
            caller, body = await taken(request, "act", Note)
            return answer(await self._with_desk(lambda desk: _note(desk, caller, alert, body)))

        @router.post(
            "/{alert}/resolve",
            **described(Resolve, {"outcome": "true", "why": "coupons revoked"}, _REPLY),
        )
        async def resolve(alert: str, request: Request) -> Response:
            """Close an alert, and say whether it was right; for a closed one, say or correct what came of it."""
            caller, body = await taken(request, "act", Resolve)
            return answer(await self._with_desk(lambda desk: _resolve(desk, caller, alert, body)))

        @router.post("/{alert}/act", **described(Act, {"dry_run": False, "why": "one device, 40 accounts"}, _ACTED))
        async def act(alert: str, request: Request) -> Response:
            """Say what the action of an alert's rule would do, or take it (`dry_run`: false; needs `why`)."""
            caller, body = await taken(request, "act", Act)
            if not body.dry_run and body.why is None:
                raise Refusal(422, "why: is needed to take an action; say it in a few words")
            return answer(await self._with_desk(lambda desk: self._act(desk, caller, alert, body)))

        return router

    def _act(self, desk: Desk, caller: Caller, beginning: str, body: Act) -> dict[str, Any]:
        alert = desk.alert(beginning)
        done = Done(datetime.now(UTC), caller.name, body.why or "")
        plan = alert_actions.plan_of(desk, alert, body.action, body.campaign, body.channel, done, self._link.remote())
        if isinstance(plan, alert_actions.Call):
            return self._call(desk, plan, body)
        _, planned, done = plan
        reply = {"alert_id": alert.alert_id, **alert_actions.for_machines(planned, not body.dry_run)}
        if body.dry_run:
            return reply
        first = alert_actions.take(desk, alert, planned, done)
        if first is not None:
            raise _conflict(
                f"{first.operator} took the same action just before; its events bear that name",
                first.operator,
                first.at,
            )
        return {**reply, "wait_for": wait_for(desk.appended)}

    def _call(self, desk: Desk, call: alert_actions.Call, body: Act) -> dict[str, Any]:
        if call.before:
            first = call.before[0]
            raise _conflict(
                f"{first.operator} has called channel {call.channel} about this alert", first.operator, first.at
            )
        channel, message = channel_of(self._rules, call.channel), message_of(call.situation.row)
        reply = {
            "alert_id": call.alert.alert_id,
            "action": "webhook",
            "dry_run": body.dry_run,
            "channel": call.channel,
            "message": message.as_json(),
        }
        if not body.dry_run:
            send(channel, message)
            alert_actions.record(desk, call.alert, "webhook", {"channel": call.channel}, call.done)
            reply["wait_for"] = wait_for(desk.appended)
        return reply


# ── What callers do ──────────────────────────────────────────────────────────────────────────────────────────


def _acknowledge(desk: Desk, caller: Caller, beginning: str, body: Acknowledge) -> dict[str, Any]:
    alert, now = desk.alert(beginning), datetime.now(UTC)
    taken_by = alert.acknowledged
    if alert.phase == "resolved":
        raise _closed(alert)
    if taken_by is not None and taken_by.operator != caller.name and taken_by.holds(now) and not body.take_over:
        raise _conflict(
            f"{taken_by.operator} has taken alert {alert.alert_id}; agree, then send take_over",
            taken_by.operator,
            taken_by.at,
        )
    until = None if body.until is None else aware(body.until)
    events = desk.do(
        alert_commands.Acknowledge(alert_id=alert.alert_id, operator=caller.name, now=now, until=until, note=body.why)
    )
    course = course_of(desk, alert, events)
    if course.after.phase == "resolved":
        raise _closed(course.after)
    later = course.last("acknowledged")
    if later is not None:
        raise _conflict(
            f"{later.operator} has taken alert {alert.alert_id} just after you, and has it now; agree on who goes on",
            later.operator,
            later.occurred_at,
        )
    return _done(desk, alert, events)


def _assign(desk: Desk, caller: Caller, beginning: str, body: Assign) -> dict[str, Any]:
    alert = desk.alert(beginning)
    if alert.phase == "resolved":
        raise _closed(alert)
    command = alert_commands.Assign(
        alert_id=alert.alert_id, operator=caller.name, now=datetime.now(UTC), assignee=body.assignee, note=body.why
    )
    return _done(desk, alert, desk.do(command))


def _note(desk: Desk, caller: Caller, beginning: str, body: Note) -> dict[str, Any]:
    alert = desk.alert(beginning)
    command = alert_commands.Note(alert_id=alert.alert_id, operator=caller.name, now=datetime.now(UTC), note=body.text)
    return _done(desk, alert, desk.do(command))


def _resolve(desk: Desk, caller: Caller, beginning: str, body: Resolve) -> dict[str, Any]:
    alert = desk.alert(beginning)
    other = alert.resolved_by not in (None, caller.name) and alert.outcome not in (None, body.outcome)
    if alert.phase == "resolved" and other and not body.correct:
        raise _conflict(
            f"{alert.resolved_by} closed alert {alert.alert_id} as {alert.outcome}; agree, then send correct",
            alert.resolved_by,
            alert.resolved_at,
        )
    command = alert_commands.Resolve(
        alert_id=alert.alert_id,
        operator=caller.name,
        now=datetime.now(UTC),
        outcome=body.outcome,
        saved_minor=body.saved_minor,
        currency=body.currency,
        note=body.why,
    )
    says_more = (body.outcome, None, None) != (alert.outcome, body.saved_minor, body.why)
    events = desk.do(command) if says_more or alert.phase != "resolved" else []
    reply = _done(desk, alert, events)
    later = course_of(desk, alert, events).last("resolved")
    if later is not None and later.outcome not in (None, body.outcome):
        raise _conflict(
            f"{later.operator} closed alert {alert.alert_id} as {later.outcome} just after you, and that counts; agree",
            later.operator,
            later.occurred_at,
        )
    return reply


def _silence(desk: Desk, caller: Caller, body: NewSilence) -> dict[str, Any]:
    matchers = [Matcher.parse(text) for text in body.matchers]
    if body.alert is not None:
        alert = desk.alert(body.alert)
        matchers += [Matcher("rule", alert.rule), *(Matcher(name, value) for name, value in alert.labels.items())]
    made = Silence(
        matchers=tuple(matchers), operator=caller.name, now=datetime.now(UTC), until=aware(body.until), note=body.why
    )
    events = desk.do(made)
    silenced = sum(desk.book.silences[made.silence_id].matches(one) for one in desk.book.open_alerts())
    return {"silence_id": made.silence_id, "silenced": silenced, **_appended(desk, events)}


def _unsilence(desk: Desk, caller: Caller, beginning: str) -> dict[str, Any]:
    known = desk.silence(beginning)
    if known is not None and known.ended_at is not None:
        raise _conflict(f"silence {known.silence_id} has ended already", known.ended_by, known.ended_at)
    ended = beginning if known is None else known.silence_id
    events = desk.do(Unsilence(silence_id=ended, operator=caller.name, now=datetime.now(UTC)))
    return {"silence_id": ended, **_appended(desk, events)}


def _report_missed(desk: Desk, caller: Caller, body: Missed) -> dict[str, Any]:
    command = ReportMissed(
        rule=body.rule,
        labels=body.key,
        since=aware(body.since),
        until=aware(body.until or body.since),
        operator=caller.name,
        now=datetime.now(UTC),
        note=body.why,
        money_minor=body.money_minor,
        currency=body.currency,
        withdraw=body.withdraw,
    )
    return _appended(desk, desk.do(command))


def _rules_of(found: Any) -> set[str]:
    return {row["rule"] for frame in found.frames for row in frame.iter_rows(named=True)}


def _closed(alert: Alert) -> Refusal:
    who = alert.resolved_by or "the ledger"
    return _conflict(
        f"{who} has closed alert {alert.alert_id}; nobody has to take it", alert.resolved_by, alert.resolved_at
    )


def _conflict(detail: str, who: str | None, at: datetime | None) -> Refusal:
    """409, with who was first (None: the ledger itself) and when."""
    return Refusal(409, detail, who=who, at=None if at is None else at.astimezone(UTC).isoformat())


def _done(desk: Desk, alert: Alert, events: Sequence[AlertEvent]) -> dict[str, Any]:
    return {"alert_id": alert.alert_id, **_appended(desk, events)}


def _appended(desk: Desk, events: Sequence[AlertEvent]) -> dict[str, Any]:
    recorded = [event.model_dump(exclude_none=True, mode="json") for event in events]
    return {"events": recorded, "wait_for": wait_for(desk.appended if events else ())}


_REPLY: Final[Mapping[str, Any]] = {
    "alert_id": "3f9a01c2d4e5f607",
    "events": [{"type": "acknowledged", "event_id": "e-1", "operator": "mei"}],
    "wait_for": "coupon.alerts:0:42",
}
_UNTIL: Final = "2026-11-11T22:00:00Z"
_SILENCE: Final = {"matchers": ["rule=device_farm", "campaign=8"], "until": _UNTIL, "why": "load test"}
_SILENCED: Final = {**_REPLY, "silence_id": "5b1e07c2a9d4", "silenced": 3}
_MISSED: Final = {"rule": "device_farm", "since": "2026-11-11T12:00:00Z", "key": {"device_id": "d-77"}}
_ACTED: Final[Mapping[str, Any]] = {
    "alert_id": "3f9a01c2d4e5f607",
    "action": "revoke_coupons",
    "dry_run": False,
    "new_events": 40,
    "repeated_events": 0,
    "effect": {"coupons": 40},
    "event_ids": ["alert:3f9a01c2d4e5f607:revoked:c-1"],
    "wait_for": "coupon.events:0:42",
}
