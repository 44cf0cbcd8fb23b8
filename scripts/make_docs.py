"""Write the documents that are generated from the code: docs/events.md, docs/asyncapi.json, docs/cli.md,
docs/metrics.md, docs/questions.md, docs/alert-rules.md. Run by `make docs`; a test fails if a document differs from
what this would write."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import fastavro

from coupon_ledger import schemas
from coupon_ledger.cli.main import cli
from coupon_ledger.ledger.alert_events import TYPES
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME, current_writer, encode
from coupon_ledger.ledger.events import (
    MAX_AMOUNT,
    MAX_ID_CHARS,
    MAX_ITEMS,
    MAX_JSON_CHARS,
    MAX_TEXT_CHARS,
    Event,
    canonical_json,
    parse_with_topic,
)
from coupon_ledger.ledger.labels import codes, personal_columns
from coupon_ledger.ledger.murmur2 import murmur2
from coupon_ledger.ledger.operations import ACTIONS
from coupon_ledger.ledger.rules import CHOICES, GRACE_MINUTES, GUARDS, NEEDS, STATES, TRANSITIONS
from coupon_ledger.ledger.topics import ALERTS, COUPON, KEY_FIELD, OPERATIONS
from coupon_ledger.questions.asking import Question
from coupon_ledger.questions.metrics.definitions import METRICS, SOURCES, Metric
from coupon_ledger.questions.parameters import CUT, Parameter
from coupon_ledger.questions.registry import QUESTIONS
from scripts import alert_rules, asyncapi, http_api
from scripts.examples import example

DOCS = Path(__file__).parent.parent / "docs"


def events_md() -> str:
    """The event reference: topics, fields, the required fields of each type with an example, and the life of a
    coupon."""
    return "\n".join(_events()) + "\n"


def _events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "Generated from the schemas by `make docs`. Amounts are integers in minor units, rates integer basis points;"
    yield "instants in JSON are RFC 3339 with a zone and at most microseconds. Null and absent are the same."
    yield "An event that lacks a field that its type needs is refused; where it comes from elsewhere, it becomes a"
    yield "dead letter. How to publish them from any language, to the byte: [below](#publishing-from-any-language)."
    for topic, name in SCHEMA_NAME.items():
        yield from _topic(topic, schemas.current(name))
    yield from _operations()
    yield from _alerts()
    yield from _life()
    yield from _publishing()


def _topic(topic: str, schema: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## `{topic}`"
    yield ""
    yield f"{schema['doc']} Key: `{KEY_FIELD[topic]}`."
    yield from _field_table(schema)
    for kind, needed in NEEDS[topic].items():
        needs = ", ".join(f"`{n}`" for n in needed) or "nothing more"
        yield f"**{kind}** {codes()[kind].zh} needs {needs}."
        yield "```json"
        yield json.dumps(example(topic, kind), ensure_ascii=False)
        yield "```"


def _field_table(schema: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for field in schema["fields"]:
        yield f"| `{field['name']}` | {_type(field['type'])} | {field['doc']} |"
    yield ""


def _operations() -> Iterator[str]:
    schema = schemas.current("operation_event")
    yield ""
    yield f"## `{OPERATIONS}`"
    yield ""
    yield f"{schema['doc']} Key: `event_id`. Appended by the ledger itself, listed by `coupon-ledger operations`."
    yield from _field_table(schema)
    yield "| action | what was done |"
    yield "|---|---|"
    for action, meaning in ACTIONS.items():
        yield f"| `{action}` | {meaning} |"


def _alerts() -> Iterator[str]:
    schema = schemas.current("alert_event")
    yield ""
    yield f"## `{ALERTS}`"
    yield ""
    yield f"{schema['doc']} Key: the fingerprint, or `silence:` and the silence's id, or `rule:` and the rule's name."
    yield "Appended by the ledger itself."
    yield from _field_table(schema)
    yield "| type | what happened |"
    yield "|---|---|"
    for kind, meaning in TYPES.items():
        yield f"| `{kind}` | {meaning} |"


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
    yield "\n" + Path(__file__).with_name("coupons.md").read_text(encoding="utf-8").rstrip("\n")
    yield from _cross_rules()


def _cross_rules() -> Iterator[str]:
    text = Path(__file__).with_name("cross-rules.md").read_text(encoding="utf-8").rstrip("\n")
    yield "\n" + text.format(grace=GRACE_MINUTES)


def _publishing() -> Iterator[str]:
    data = example(COUPON, "used") | {"attributes": {"till": 7}}
    event = parse_with_topic(data)
    message = encode(event)
    keys = [event.key, "c-1234", "券-1"]
    hashes = [int(h) for h in murmur2([k.encode() for k in keys])]
    template = Path(__file__).with_name("publishing.md").read_text(encoding="utf-8")
    yield "\n" + template.rstrip("\n").format(
        topics=", ".join(f"`{t}`" for t in SCHEMA_NAME),
        keys=", ".join(f"`{f}`" for f in KEY_FIELD.values()),
        headers="\n".join(f"| `{n}` | `{current_writer(n).header.hex(' ')}` |" for n in SCHEMA_NAME.values()),
        ids=MAX_ID_CHARS,
        texts=f"{MAX_TEXT_CHARS:,}",
        json=f"{MAX_JSON_CHARS:,}",
        items=f"{MAX_ITEMS:,}",
        amounts=f"{MAX_AMOUNT:,}",
        choices="\n".join(f"- `{name}`: {', '.join(values)}" for name, values in CHOICES.items()),
        event=json.dumps(data, ensure_ascii=False),
        key=event.key,
        length=len(message),
        bytes="\n".join(f"| `{part.hex(' ')}` | {what} |" for part, what in message_parts(event)),
        whole="\n".join(message[i : i + 24].hex(" ") for i in range(0, len(message), 24)),
        partitions="\n".join(
            f"| `{k}` | `{h:08x}` | {(h & 0x7FFFFFFF) % 4} | {(h & 0x7FFFFFFF) % 12} |"
            for k, h in zip(keys, hashes, strict=True)
        ),
    )


def message_parts(event: Event) -> Iterator[tuple[bytes, str]]:
    """The pieces of the message, each with its meaning; encoded by an Avro library other than the ledger's."""
    writer = current_writer(SCHEMA_NAME[event.topic])
    yield writer.header[:2], "the marker of a single object"
    yield writer.header[2:], f"the fingerprint of `{writer.name}`"
    nulls: list[str] = []
    for field in writer.schema["fields"]:
        value = getattr(event, field["name"])
        if value is None:
            nulls.append(field["name"])
            continue
        yield from _nulls(nulls)
        nulls = []
        text = canonical_json(value) if field["name"] in JSON_FIELDS else value
        piece = io.BytesIO()
        fastavro.schemaless_writer(piece, field["type"], text)
        shown = text.isoformat() if isinstance(text, datetime) else text
        yield piece.getvalue(), f"`{field['name']}`: {shown}"
    yield from _nulls(nulls)


def _nulls(names: list[str]) -> Iterator[tuple[bytes, str]]:
    if names:
        yield bytes(len(names)), ", ".join(f"`{n}`" for n in names) + ": null"


def asyncapi_json() -> str:
    """The event reference for tools, as AsyncAPI."""
    return json.dumps(asyncapi.document(), ensure_ascii=False, indent=2) + "\n"


def metrics_md() -> str:
    """The meaning of each metric, for the people who read it."""
    return "\n".join(_metrics()) + "\n"


def _metrics() -> Iterator[str]:
    yield Path(__file__).with_name("metrics.md").read_text(encoding="utf-8").rstrip("\n")
    rest = dict(METRICS)
    for title, belongs in _METRIC_PARTS.items():
        mine = [rest.pop(name) for name, metric in list(rest.items()) if belongs(metric)]
        yield f"\n## {title}"
        for metric in mine:
            yield from _metric(metric)


def _metric(metric: Metric) -> Iterator[str]:
    view = {"event": "event view", "cohort": "cohort view", "now": "as it stands now"}[metric.view]
    yield f"\n### `{metric.name}` {metric.chinese}"
    yield ""
    yield f"{metric.meaning} {metric.caveat}"
    yield ""
    yield f"- {metric.unit}, {view}; by {', '.join(metric.dimensions)}"
    yield f"- counted: {metric.grain}"
    source = SOURCES.get(metric.source or "")
    yield f"- SQL: `{_one_line(metric.sql)}`" + (f" over `{_one_line(source.from_)}`" if source else "")


def _one_line(sql: str) -> str:
    return " ".join(sql.split())


# A metric belongs to the first part that accepts it.
_METRIC_PARTS: Final[dict[str, Callable[[Metric], bool]]] = {
    "Return on investment": lambda m: m.name == "simple_roi",
    "Sales": lambda m: m.unit == "orders" or {"orders", "coupon_orders"} & {_source(p) for p in m.parts} != set(),
    "Cost": lambda m: m.money or m.name == "net_uses",
    "Stock": lambda m: m.view == "now",
    "How long it takes": lambda m: m.unit == "seconds",
    "What became of the coupons of a period": lambda m: m.view == "cohort",
    "What happened in a period": lambda m: True,
}


def _source(part: str) -> str | None:
    return METRICS[part].source


def cli_md() -> str:
    """The help text of every command."""
    lines = ["# Commands", "", "Generated from the commands' help by `make docs`."]
    for path, command in commands("coupon-ledger", cli):
        context = click.Context(command, info_name=path, terminal_width=100, **cli.context_settings)
        lines += ["", f"## {path}", "", "```", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from commands(f"{path} {name}", subcommand)


def questions_md() -> str:
    """Every question with its parameters, for programs that ask the owner."""
    head = Path(__file__).with_name("questions.md").read_text(encoding="utf-8").rstrip("\n")
    cut = "\n".join(_parameter_row(p) for name, p in QUESTIONS["coupons"].parameters.items() if name in CUT)
    personal = ", ".join(f"`{name}`" for name in sorted(personal_columns()))
    lines = [head.format(cut=cut, personal=personal)]
    for name, question in QUESTIONS.items():
        lines += _question(name, question)
    return "\n".join(lines) + "\n"


def _question(name: str, question: Question[Any]) -> Iterator[str]:
    yield f"\n## `{name}`"
    yield ""
    yield inspect.cleandoc(question.ask.__doc__ or "")
    own = [parameter for parameter in question.parameters.values() if parameter.name not in CUT]
    if own:
        yield "\n| parameter | bounds | default | |\n|---|---|---|---|"
        yield from map(_parameter_row, own)
    if len(own) < len(question.parameters):
        yield "\nAlso takes `at`, `known_at` and `positions`."


def _parameter_row(parameter: Parameter) -> str:
    default = (
        "required" if parameter.required else json.dumps(parameter.default) if parameter.default is not None else ""
    )
    return f"| `{parameter.name}` | {parameter.bounds or ''} | {default} | {parameter.description} |"


DOCUMENTS = {
    DOCS / "events.md": events_md,
    DOCS / "asyncapi.json": asyncapi_json,
    DOCS / "cli.md": cli_md,
    DOCS / "metrics.md": metrics_md,
    DOCS / "questions.md": questions_md,
    DOCS / "alert-rules.md": alert_rules.document,
    DOCS / "http-api.md": http_api.http_api_md,
    DOCS / "openapi.json": http_api.openapi_json,
}

if __name__ == "__main__":
    for document, text in DOCUMENTS.items():
        document.write_text(text(), encoding="utf-8")
