"""Writes the documents that are made from the code: docs/events.md and docs/cli.md. `make docs` runs it; a test fails
when a document is not what this would write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import schemas
from cli.main import cli
from ledger.codec import SCHEMA_NAME
from ledger.rules import GUARDS, LABELS, NEEDS, STATES, TRANSITIONS
from ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER

DOCS = Path(__file__).parent.parent / "docs"

VALUES: dict[str, Any] = {
    "campaign_id": "double-11",
    "coupon_type": "cash",
    "channel": "app",
    "user_id": "u-1",
    "order_id": "o-1",
    "discount_minor": 500,
    "reason": "not_used",
    "currency": "CNY",
    "gross_minor": 12000,
    "net_minor": 11500,
    "refund_minor": 11500,
    "name": "双十一",
    "cost_kind": "media",
    "amount_minor": 250000,
    "metric": "use_rate_bp",
    "target": 1500,
    "arm": "control",
    "attributes": {"region": "south"},
    "alias_id": "phone-9f86d081",
    "kind": "click",
}
KEYS = {"coupon_id": "c-1", "order_id": "o-1", "campaign_id": "double-11", "user_id": "u-1"}


def events_md() -> str:
    """The event reference: topics, fields, what each type needs with an example, the coupon's life."""
    return "\n".join(_events()) + "\n"


def _events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "Made from the schemas by `make docs`. Amounts are integers in minor units, rates integer basis points;"
    yield "instants in JSON are RFC 3339 with a zone and at most microseconds. Null and absent are the same."
    yield "An event that lacks a field that its type needs is refused; where it comes from elsewhere, it becomes a"
    yield "dead letter."
    for topic, name in SCHEMA_NAME.items():
        yield from _topic(topic, schemas.current(name))
    yield from _life()


def _topic(topic: str, schema: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## `{topic}`"
    yield ""
    yield f"{schema['doc']} Key: `{KEY_FIELD[topic]}`."
    yield ""
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for field in schema["fields"]:
        yield f"| `{field['name']}` | {_type(field['type'])} | {field['doc']} |"
    yield ""
    for kind, needed in NEEDS[topic].items():
        label = f" {LABELS[kind]}" if topic == COUPON else ""
        needs = ", ".join(f"`{n}`" for n in needed) or "nothing more"
        yield f"**{kind}**{label} needs {needs}."
        yield "```json"
        yield json.dumps(example(topic, kind), ensure_ascii=False)
        yield "```"


def example(topic: str, kind: str) -> dict[str, Any]:
    """A smallest valid event of that type, as a line of NDJSON has it."""
    key = KEY_FIELD[topic]
    prefix = {COUPON: "c", ORDER: "o", CAMPAIGN: "m"}.get(topic, "u")
    head = {
        "topic": topic,
        "type": kind,
        "event_id": f"{prefix}-{kind}-1",
        "occurred_at": "2026-11-11T00:00:00Z",
        "source": "shop",
        key: KEYS[key],
    }
    return head | {name: VALUES[name] for name in NEEDS[topic][kind] if name != key}


def _type(kind: Any) -> str:
    if isinstance(kind, list):
        return _type(kind[1]) + ", nullable"
    if isinstance(kind, str):
        return {"string": "text", "long": "integer"}.get(kind, kind)
    if kind["type"] == "array":
        return "list of " + _type(kind["items"])
    if kind["type"] == "record":
        return "{" + ", ".join(f["name"] for f in kind["fields"]) + "}"
    return "instant" if kind["type"] == "long" else "one of " + ", ".join(kind["symbols"])


def _life() -> Iterator[str]:
    yield ""
    yield "## The life of a coupon"
    yield ""
    yield "The state after an event, by the state before it. `!` marks an illegal event: it stays in the history and"
    yield "yields the violation `<event>_when_<state>`. *resting* is the state that the coupon was in when it last left"
    yield "another state for `reserved` or `used`. Events are folded by `occurred_at`, then type, then `event_id`."
    yield ""
    yield "| state \\ event | " + " | ".join(TRANSITIONS) + " |"
    yield "|---" * (len(TRANSITIONS) + 1) + "|"
    for i, state in enumerate(STATES):
        cells = [cells[i].replace("!", " !").replace("resting", "*resting*") for cells in TRANSITIONS.values()]
        yield f"| {state} | " + " | ".join(cells) + " |"
    yield ""
    yield (
        "Guards add violations of their own: "
        + ", ".join(f"`{name}`" for name in GUARDS)
        + "; an `event_id` that comes"
    )
    yield "again with another content yields `conflicting_duplicate`."


def cli_md() -> str:
    """The help text of every command."""
    lines = ["# Commands", "", "Made from the commands' own help by `make docs`."]
    for path, command in _commands("coupon-ledger", cli):
        context = click.Context(command, info_name=path, terminal_width=100, **cli.context_settings)
        lines += ["", f"## {path}", "", "```", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(f"{path} {name}", found)


DOCUMENTS = {DOCS / "events.md": events_md, DOCS / "cli.md": cli_md}

if __name__ == "__main__":
    for document, text in DOCUMENTS.items():
        document.write_text(text(), encoding="utf-8")
