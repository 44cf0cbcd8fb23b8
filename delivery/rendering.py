"""The texts of a message, in the language, zone and form of its channel.

Summaries and keys may hold text from outside, and data about persons. Text from outside is made harmless
(`safe_text`). Data about persons is left out unless the channel is marked for it: the values of all keys but
`PUBLIC_KEYS`, and the same values wherever they occur in a summary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from typing import Any, Final

from coupon_ledger.delivery.channels import Channel
from coupon_ledger.delivery.job import Rendered
from coupon_ledger.delivery.messages import AlertMessage, Item, MessageKind
from coupon_ledger.delivery.safe_text import HIDDEN, harmless, one_line, plain_markdown, shortened, without
from coupon_ledger.ledger.labels import of_code
from coupon_ledger.reports.labels import figure, label, say, word
from coupon_ledger.reports.view import View, showing, view

PUBLIC_KEYS: Final = frozenset(
    "arm bucket campaign campaign_id channel coupon_id coupon_type currency experiment metric of order_id partition"
    " region source state store topic type violation".split()
)
"""Keys whose values are about no person. All others are, also those that the query of an SQL rule makes up."""
WEBHOOK_VERSION: Final = 1
"""The version of the body of webhooks, raised if a field changes its meaning or goes."""
TITLES: Final[Mapping[MessageKind, str]] = {
    "firing": "[{severity:word}] {rule}",
    "resolved": "[resolved] {rule}",
    "repeat": "[{severity:word}] still firing: {rule}",
    "digest": "[{severity:word}] digest: {rule}",
    "escalation": "[{severity:word}] nobody has acted: {rule}",
    "flapping": "[{severity:word}] fires and recovers again and again: {rule}",
    "test": "[test] {rule}",
}
_MOST_TITLE: Final = 120
_MOST_SUMMARY: Final = 600
_MOST_VALUE: Final = 100
_MOST_PLAYBOOK: Final = 2_000
_MOST_SHORT: Final = 140
"""Characters. 140 are one or two SMS with Latin letters, up to three in Chinese."""
_MOST_KEYS: Final = 20
_MOST_ITEMS: Final = 20


def render(message: AlertMessage, channel: Channel) -> Rendered:
    """The message in all forms, in the channel's language and zone, no longer than its destination takes."""
    # Before anything is cut: what is left of a value would not be recognised.
    message = _bounded(message if channel.personal_data else _impersonal(message))
    with showing(View(channel.language, channel.zone)):
        title = shortened(
            harmless(say(TITLES[message.kind], severity=message.severity, rule=message.rule)), _MOST_TITLE
        )
        lines = list(_lines(message))
        identity = say("alert {id}; to see it: `coupon-ledger alerts show {id}`", id=harmless(message.alert_id)[:100])
        room = channel.kind.most_bytes - len(title.encode()) - 2
        return Rendered(
            title=title,
            text=_fitted([line.text() for line in lines], identity, room, "\n"),
            short=_short(message, title),
            markdown=_fitted([line.markdown() for line in lines], identity, room, "\n\n"),
            html=_html(title, lines, identity),
            severity=message.severity,
            firing=message.kind not in ("resolved", "test"),
            thread=message.alert_id,
            data=_data(message),
        )


# ── What is in it ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a message: its heading and its text, harmless. `address`: whether the text is an address, which stays
    as it is."""

    heading: str
    shown: str
    address: bool = False

    def text(self) -> str:
        return f"{self.heading}{_colon()}{self.shown}"

    def markdown(self) -> str:
        return (
            f"**{plain_markdown(self.heading)}**{_colon()}{self.shown if self.address else plain_markdown(self.shown)}"
        )


def _colon() -> str:
    return "：" if view().chinese else ": "


def _lines(message: AlertMessage) -> Iterator[_Line]:
    """The most important lines first: the last ones are left out where there is no room."""
    yield _Line(say("what happened"), harmless(_in_language(message.summary)))
    if message.money_minor is not None:
        yield _Line(say("money at stake"), figure("money_minor", message.money_minor, message.currency))
    if message.value is not None:
        yield _Line(*_value(message, message.value))
    yield _Line(say("holds since"), _instant(message.since))
    if message.until is not None:
        yield _Line(say("held until"), _instant(message.until))
    if message.playbook:
        yield _Line(say("what to do"), harmless(message.playbook, links=True))
    if message.keys:
        yield _Line(say("of what"), _keys(message.keys))
    for item in message.items:
        yield _Line(say("also"), harmless(_in_language(item.summary)))
    if message.further:
        yield _Line(say("also"), say("{n:count} further alert{n:s} of this group", n=message.further))
    if message.link:
        yield _Line(say("to be seen at"), one_line(message.link), address=True)


def _in_language(texts: Mapping[str, str]) -> str:
    return texts.get(view().lang) or texts.get("en") or next(iter(texts.values()), "")


def _value(message: AlertMessage, value: float) -> tuple[str, str]:
    name = message.metric or "value"
    shown = figure(name, value, message.currency)
    if message.threshold is not None:
        shown = say("{value} (threshold {threshold})", value=shown,
                    threshold=figure(name, message.threshold, message.currency))  # fmt: skip
    return harmless(label(name)), harmless(shown)


def _keys(keys: Mapping[str, str]) -> str:
    shown = (f"{label(one_line(name))} {word(value)}" for name, value in keys.items())
    return harmless(("，" if view().chinese else ", ").join(shown))


def _instant(at: datetime) -> str:
    return f"{view().instant(at.replace(microsecond=0))} ({view().zone})"


def _bounded(message: AlertMessage) -> AlertMessage:
    """The message with no text longer than a message shows."""
    return replace(
        message,
        rule=shortened(one_line(message.rule), _MOST_TITLE),
        summary=_bounded_summary(message.summary),
        keys=_bounded_keys(message.keys),
        items=tuple(Item(_bounded_summary(i.summary), _bounded_keys(i.keys)) for i in message.items[:_MOST_ITEMS]),
        further=message.further + max(0, len(message.items) - _MOST_ITEMS),
        playbook=message.playbook and shortened(message.playbook, _MOST_PLAYBOOK),
    )


def _bounded_summary(summary: Mapping[str, str]) -> dict[str, str]:
    return {lang: shortened(one_line(text), _MOST_SUMMARY) for lang, text in summary.items()}


def _bounded_keys(keys: Mapping[str, str]) -> dict[str, str]:
    kept = list(keys.items())[:_MOST_KEYS]
    return {shortened(one_line(name), _MOST_VALUE): shortened(one_line(value), _MOST_VALUE) for name, value in kept}


# ── Data about persons ───────────────────────────────────────────────────────────────────────────────────────


def _is_personal(name: str, value: str) -> bool:
    # `code` is a coupon's code, or a violation's, which is a word of ours.
    return name not in PUBLIC_KEYS and not (name == "code" and of_code(value) is not None)


def _impersonal(message: AlertMessage) -> AlertMessage:
    """The message without data about persons."""
    summary, keys = _without_persons(message.summary, message.keys)
    items = tuple(Item(*_without_persons(item.summary, item.keys)) for item in message.items)
    return replace(message, summary=summary, keys=keys, items=items)


def _without_persons(summary: Mapping[str, str], keys: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    personal = [one_line(value) for name, value in keys.items() if _is_personal(name, value)]
    return (
        {lang: without(one_line(text), personal) for lang, text in summary.items()},
        {name: HIDDEN if _is_personal(name, value) else value for name, value in keys.items()},
    )


# ── Forms ────────────────────────────────────────────────────────────────────────────────────────────────────


def _fitted(lines: list[str], identity: str, room: int, gap: str) -> str:
    """The lines and the identity, in `room` bytes: first the last lines are left out, then the first is cut."""

    def size(kept: list[str]) -> int:
        return len(gap.join([*kept, identity]).encode())

    while len(lines) > 1 and size(lines) > room:
        lines = lines[:-1]
    while size(lines) > room and lines[0]:
        lines = [shortened(lines[0], len(lines[0]) - 1 - (size(lines) - room) // 4)]
    return gap.join([*lines, identity])


def _short(message: AlertMessage, title: str) -> str:
    end = f" {harmless(message.alert_id)[:40]}"
    text = shortened(f"{title}{_colon()}{harmless(_in_language(message.summary))}", _MOST_SHORT - len(end))
    return text + end


def _html(title: str, lines: list[_Line], identity: str) -> str:
    rows = "".join(
        f'<tr><th style="text-align:left;vertical-align:top;padding:4px 12px 4px 0">{escape(line.heading)}</th>'
        f'<td style="padding:4px 0">{_cell(line)}</td></tr>'
        for line in lines
    )
    return (
        f'<!doctype html><html lang="{view().lang}"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        f'<body style="font-family:sans-serif"><h3>{escape(title)}</h3><table>{rows}</table>'
        f"<p>{escape(identity)}</p></body></html>"
    )


def _cell(line: _Line) -> str:
    shown = escape(line.shown)
    is_link = line.address and line.shown.startswith(("https://", "http://"))
    return f'<a href="{shown}">{shown}</a>' if is_link else shown


def _data(message: AlertMessage) -> dict[str, Any]:
    """The body of a webhook. Texts from outside are as they are: whoever shows them escapes them."""
    alert = message.as_json()
    return {"version": WEBHOOK_VERSION, "key": alert.pop("key"), "kind": alert.pop("kind"), "alert": alert}
