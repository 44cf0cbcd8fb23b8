"""The AsyncAPI 3.0 document of the log: channels, keys, messages with their Avro schemas, operations."""

from __future__ import annotations

from typing import Any, Final

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import SCHEMA_NAME, current_writer
from coupon_ledger.ledger.rules import NEEDS
from coupon_ledger.ledger.topics import ALERTS, ALL_TOPICS, DEAD_LETTERS, KEY_FIELD, OPERATIONS
from scripts.examples import example

Json = dict[str, Any]

_AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
_KEYS: Final = {topic: f"The event's `{field}`, UTF-8." for topic, field in KEY_FIELD.items()} | {
    ALERTS: "The alert's `fingerprint`, or `silence:` and the silence's id, or `rule:` and the rule's name; UTF-8.",
    DEAD_LETTERS: "The record's position: topic-partition-offset.",
    OPERATIONS: "The operation's `event_id`, UTF-8.",
}
_MESSAGES: Final = {
    **SCHEMA_NAME,
    ALERTS: "alert_event",
    DEAD_LETTERS: "dead_letter",
    OPERATIONS: "operation_event",
}
_SENT: Final = {
    ALERTS: "The life of alerts: when they fired, who took them, what came of them; silences.",
    DEAD_LETTERS: "Records that are no valid event, whole, with the reason.",
    OPERATIONS: "What operators did to the ledger: repairs, swaps; who and why.",
}


def document() -> Json:
    """The complete document, as JSON values."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Coupon ledger",
            "version": "1",
            "description": "Coupon, order, campaign and user events on Kafka. How to publish them from any language, to"
            " the byte: docs/events.md. A configurable prefix may stand before each address.",
        },
        "defaultContentType": "avro/binary",
        "servers": {
            "kafka": {
                "host": "localhost:9092",
                "protocol": "kafka",
                "description": "Any Kafka cluster; `coupon-ledger init` makes the topics.",
            }
        },
        "channels": {_identifier(topic): _channel(topic) for topic in ALL_TOPICS},
        "operations": {_operation_name(topic): _operation(topic) for topic in _MESSAGES},
        "components": {"messages": {name: _message(topic, name) for topic, name in _MESSAGES.items()}},
    }


def _identifier(topic: str) -> str:
    """coupon.dead-letters → couponDeadLetters"""
    first, *rest = topic.replace("-", ".").split(".")
    return first + "".join(word.capitalize() for word in rest)


def _channel(topic: str) -> Json:
    name = _MESSAGES[topic]
    return {
        "address": topic,
        "description": str(schemas.current(name)["doc"]),
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "kafka": {
                "topic": topic,
                "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": -1},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _operation_name(topic: str) -> str:
    return ("append" if topic in _SENT else "fold") + _identifier(topic)[0].upper() + _identifier(topic)[1:]


def _operation(topic: str) -> Json:
    """From the ledger's side: it receives events, and sends dead letters and operations."""
    channel = _identifier(topic)
    return {
        "action": "send" if topic in _SENT else "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": _SENT.get(
            topic, "Each event is folded once, in any order of arrival; repeats with the same `event_id` are harmless."
        ),
        "messages": [{"$ref": f"#/channels/{channel}/messages/{_MESSAGES[topic]}"}],
    }


def _message(topic: str, name: str) -> Json:
    schema = schemas.current(name)
    message: Json = {
        "name": name,
        "title": str(schema["doc"]),
        "summary": "Avro single-object encoding: the header "
        + current_writer(name).header.hex(" ")
        + ", then the body. With a schema registry: byte 0, the schema's id in 4 bytes, then the body.",
        "contentType": "avro/binary",
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": {"key": {"type": "string", "description": _KEYS[topic]}, "bindingVersion": "0.5.0"}},
    }
    if topic in NEEDS:
        message["examples"] = [{"name": kind, "payload": _payload(topic, kind)} for kind in NEEDS[topic]]
    return message


def _payload(topic: str, kind: str) -> Json:
    return {name: value for name, value in example(topic, kind).items() if name != "topic"}
