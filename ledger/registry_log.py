"""A wrapper for a log whose messages are stored in the Confluent wire format: a zero byte, the id of the schema in a
schema registry (4 bytes, big-endian), and the Avro body. Users of the wrapper see no difference to another log: it
takes and returns messages in Avro's single-object encoding.

Always true:
- The registry is used only to translate an id to a schema. Whether the ledger can read that schema depends on the
  released schemas alone, as without a registry. So a rebuild does not depend on what the registry contains at that
  time.
- An id never changes its meaning. The ids of the ledger's own schemas are remembered in a file. So consumers and
  publishers that have met a schema before continue while the registry is down.
- While the registry cannot be queried, no record with an unknown id is returned: reading its partition stops there, and
  the other partitions are still read.
- Messages that are stored in single-object encoding are returned unchanged. So a topic may change its format at any
  time.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from coupon_ledger.ledger.codec import HEADER_BYTES, refuse_id, single_object_header, writer_schemas
from coupon_ledger.ledger.errors import RegistryUnavailable, SettingsError
from coupon_ledger.ledger.extras import absent, install
from coupon_ledger.ledger.log import Chunk, EventLog, Position, Record, StoredRecord, TopicPartition
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS

PREFIX_BYTES: Final = 5
_MAGIC: Final = 0
_DEFAULTS: Final = {"timeout": 5, "max.retries": 1, "retries.wait.ms": 200}
_SECOND_LOOK_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 10.0
_NOT_THERE: Final = (40401, 40402, 40403)
"""A registry's error codes for a missing subject, version or schema. A 404 without such a code is not from a
registry."""
_NOT_OURS: Final = b""
_logger = logging.getLogger(__name__)

T = TypeVar("T")


class RegistryLog:
    """An `EventLog` that stores its messages in another log, `log`, in the Confluent wire format. If the registry lacks
    the schema of an appended record, `append` registers the schema."""

    def __init__(self, log: EventLog, settings: LogSettings) -> None:
        self.url = log.url
        self._log = log
        self._prefix = settings.topic_prefix
        self._ids = SchemaIds(settings.schema_registry, Path(settings.schema_ids), settings.registry)

    def create_topics(self) -> list[str]:
        return self._log.create_topics()

    @property
    def visible_after_s(self) -> float:
        return self._log.visible_after_s

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        return self._log.partitions(topics)

    def append(self, records: Sequence[Record]) -> list[Position]:
        """Append the records as `EventLog.append` does. Also raises `RegistryUnavailable`; nothing was appended
        then."""
        return self._log.append([r._replace(value=self._framed(r)) for r in records])

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        """Read records as `LogReader.read` does. Also raises `RegistryUnavailable` if records were read, but each
        partition's first one has a schema id that cannot be looked up now."""
        return self.translated(self._log.read(positions, max_records, timeout_s))

    def translated(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Translate stored messages to single-object encoding, which `read` returns. If a chunk has a record whose
        schema id cannot be looked up now, the chunk is cut before that record, and left out if that is its first
        record.

        Raises `RegistryUnavailable` if no chunk is left.
        """
        unknown: dict[bytes, RegistryUnavailable] = {}
        prefixes = [_prefixes(c) for c in chunks]
        self._ids.learn(set().union(*prefixes), unknown)
        readable = [self._single_objects(c, unknown) if p else c for c, p in zip(chunks, prefixes, strict=True)]
        complete = [c for c in readable if c is not None]
        if unknown and not complete:
            waiting = next(c for c in chunks if _cut(c, unknown) == 0)
            raise RegistryUnavailable(
                f"{waiting.topic} partition {waiting.partition} waits at offset {waiting.offsets[0]}:"
                f" {next(iter(unknown.values()))}"
            )
        return complete

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.earliest_positions(partitions)

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.end_positions(partitions)

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.high_watermarks(partitions)

    def identities(self) -> dict[str, str]:
        return self._log.identities()

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        return self._log.records_at(positions)

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self._log.next_recorded(positions)

    def close(self) -> None:
        self._ids.close()
        self._log.close()

    def _framed(self, record: Record) -> bytes:
        header = record.value[:HEADER_BYTES]
        if header not in writer_schemas():
            return record.value
        subject = f"{self._prefix}{record.topic}-value"
        return self._ids.prefix_of(subject, header) + record.value[HEADER_BYTES:]

    def _single_objects(self, chunk: Chunk, unknown: Mapping[bytes, RegistryUnavailable]) -> Chunk | None:
        """Translate the chunk up to its first record whose prefix is in `unknown`. None if that is the chunk's first
        record."""
        end = _cut(chunk, unknown)
        if end == 0:
            return None
        headers = self._ids.headers
        wire = chunk.values[:end]
        values = [header + v[PREFIX_BYTES:] if (header := headers.get(v[:PREFIX_BYTES])) else v for v in wire]
        if end == len(chunk):
            return replace(chunk, values=values, wire=wire)
        return replace(
            chunk,
            offsets=chunk.offsets[:end],
            recorded_at=chunk.recorded_at[:end],
            keys=chunk.keys[:end],
            values=values,
            wire=wire,
            next_offset=int(chunk.offsets[end]),
        )


def as_read(log: EventLog, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Translate stored messages to what `log.read` would return for them. `chunks`: messages as the log stores them.
    Raises `RegistryUnavailable` if any of the records cannot be translated now."""
    chunks_read = log.translated(chunks) if isinstance(log, RegistryLog) else list(chunks)
    if sum(map(len, chunks_read)) < sum(map(len, chunks)):
        raise RegistryUnavailable(f"log {log.url}: some schema ids cannot be asked for now; start the registry")
    return chunks_read


def single_object(message: bytes, settings: LogSettings) -> bytes:
    """Translate a message from the wire format to single-object encoding. The message is returned unchanged if its
    schema id is not among the remembered ones."""
    header = _remembered(settings.schema_registry, settings.schema_ids).get(message[:PREFIX_BYTES])
    return header + message[PREFIX_BYTES:] if header else message


@cache
def _remembered(url: str, file: str) -> Mapping[bytes, bytes]:
    return SchemaIds(url, Path(file), {}).headers if url else {}


def _prefixes(chunk: Chunk) -> set[bytes]:
    """The distinct prefixes (zero byte and schema id) of those messages in the chunk that are in the wire format."""
    return {p for p in {v[:PREFIX_BYTES] for v in chunk.values} if len(p) == PREFIX_BYTES and p[0] == _MAGIC}


def _cut(chunk: Chunk, unknown: Mapping[bytes, RegistryUnavailable]) -> int:
    """The index of the chunk's first record whose prefix is in `unknown`. The chunk's length if there is none."""
    if not unknown:
        return len(chunk)
    return next((i for i, v in enumerate(chunk.values) if v[:PREFIX_BYTES] in unknown), len(chunk))


class SchemaIds:
    """Translates schema ids of one registry to the ledger's schemas. Ids that are not known yet are looked up in the
    registry. The ids of the ledger's own schemas are remembered in `file`, separately for each registry.

    `headers`: for each known prefix (zero byte and id), the single-object header of the ledger's schema. `b""` if the
    id's schema is not one of the ledger's.
    """

    def __init__(self, url: str, file: Path, options: Mapping[str, Any]) -> None:
        if urlsplit(url).scheme not in ("http", "https") or urlsplit(url).username:
            raise SettingsError(
                f"setting schema-registry: {url!r} is no address; write http://host:port without user and password"
                " (they go to COUPON_LEDGER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO)"
            )
        if absent("registry"):
            raise SettingsError(f"setting schema-registry: its client is not installed; run {install('registry')}")
        self._url = url.rstrip("/")
        self._file = file
        numbers = {k: int(v) for k, v in options.items() if k in _DEFAULTS and str(v).isdigit()}
        self._options = {**_DEFAULTS, **options, **numbers}  # environment variables hold only text
        self._client: Any = None
        self._lock = threading.Lock()
        self._failures = 0
        self._query_after = 0.0
        self._last: RegistryUnavailable | None = None
        self.headers: dict[bytes, bytes] = {}
        self._writing: dict[tuple[str, bytes], bytes] = {}
        self._recall()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def learn(self, prefixes: set[bytes], unknown: dict[bytes, RegistryUnavailable]) -> None:
        """Look up those of the prefixes that are not in `headers`, and add them to it. If the registry cannot be
        queried, add the prefixes that are still missing to `unknown`, each with the error."""
        new = sorted(prefixes - self.headers.keys())
        if not new:
            return
        with self._lock:
            missing = [p for p in new if not self._learn(p, unknown)]
            if unknown:
                unknown |= {p: unknown.get(p) or next(iter(unknown.values())) for p in missing}
            elif missing:
                # A node of a registry may answer a moment before it knows an id that another node has assigned.
                time.sleep(_SECOND_LOOK_S)
                for prefix in missing:
                    if not self._learn(prefix, unknown) and prefix not in unknown:
                        self.headers[prefix] = _NOT_OURS
                        refuse_id(prefix, "the registry has no such id")
                        _logger.warning("schema registry %s has no schema id %d", self._url, _id(prefix))
            self._remember()

    def _learn(self, prefix: bytes, unknown: dict[bytes, RegistryUnavailable]) -> bool:
        """Look up the schema of one prefix, and add the prefix to `headers`, or to `unknown` if the registry cannot be
        queried. Returns whether the registry has the schema."""
        try:
            schema = self._query(f"schema id {_id(prefix)}", lambda client: client.get_schema(_id(prefix)))
        except RegistryUnavailable as error:
            unknown[prefix] = error
            return False
        if schema is None:
            return False
        header, why = _our_header(schema)
        if why:
            refuse_id(prefix, why)
            _logger.warning("schema registry %s: schema id %d is refused: %s", self._url, _id(prefix), why)
        self.headers[prefix] = header
        return True

    def prefix_of(self, subject: str, header: bytes) -> bytes:
        """The prefix (zero byte and schema id) of messages written with the ledger's schema that has the single-object
        header `header`. If the registry does not have this schema under `subject`, it is registered. Raises
        `RegistryUnavailable`."""
        known = self._writing.get((subject, header))
        if known is not None:
            return known
        with self._lock:
            number = self._number_of(subject, header)
            prefix = bytes([_MAGIC]) + number.to_bytes(4, "big")
            self._writing[subject, header] = prefix
            self.headers[prefix] = header
            self._remember()
        return prefix

    def _number_of(self, subject: str, header: bytes) -> int:
        from confluent_kafka.schema_registry import Schema

        schema = Schema(json.dumps(writer_schemas()[header].schema, ensure_ascii=False), "AVRO")
        registered = self._query(f"the schema of {subject}", lambda client: client.lookup_schema(subject, schema))
        if registered is not None:
            return int(registered.schema_id)
        number = self._query(f"registering the schema of {subject}", lambda c: c.register_schema(subject, schema))
        if number is None:
            raise RegistryUnavailable(f"schema registry {self._url}: takes no schemas; check the address")
        return int(number)

    def _query(self, what: str, query: Callable[[Any], T]) -> T | None:
        """Make a query to the registry and return its answer; None if the registry has no such entry. Raises
        `RegistryUnavailable` if the query fails. For some seconds after a failure, no query is made, and the same error
        is raised at once. `what`: what is queried, for messages."""
        if self._last is not None and time.monotonic() < self._query_after:
            raise self._last
        import httpx2
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            if self._client is None:
                self._client = self._connected()
            answer = query(self._client)
        except SchemaRegistryError as error:
            if error.error_code not in _NOT_THERE:
                raise self._failed(what, error) from error
            answer = None
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:  # also answers not from a registry
            raise self._failed(what, error) from error
        self._failures, self._last = 0, None
        return answer

    def _connected(self) -> Any:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        try:
            return SchemaRegistryClient({"url": self._url, **self._options})
        except (ValueError, TypeError, OSError) as error:
            raise SettingsError(f"settings [schema-registry]: {error}; correct that option") from error

    def _failed(self, what: str, error: Exception) -> RegistryUnavailable:
        pause = min(_LONGEST_PAUSE_S, 0.5 * 2.0**self._failures)
        self._failures += 1
        self._query_after = time.monotonic() + pause
        self._last = RegistryUnavailable(
            f"schema registry {self._url}: {what} cannot be had ({error or type(error).__name__}); nothing is skipped,"
            " start the registry or correct its settings"
        )
        _logger.warning("%s; asked again after %.1f s at the earliest", self._last, pause)
        return self._last

    def _recall(self) -> None:
        """Load the remembered ids from the file. What cannot be loaded is looked up in the registry again."""
        known = _document(self._file).get(self._url, {})
        try:
            for number, header in known.get("reading", {}).items():
                if bytes.fromhex(header) in writer_schemas():
                    self.headers[bytes([_MAGIC]) + int(number).to_bytes(4, "big")] = bytes.fromhex(header)
            for subject, header, number in known.get("writing", []):
                self._writing[subject, bytes.fromhex(header)] = bytes([_MAGIC]) + int(number).to_bytes(4, "big")
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            _logger.warning("file %s: not as the ledger wrote it (%s); the registry is asked again", self._file, error)

    def _remember(self) -> None:
        document = _document(self._file)
        document[self._url] = {
            "reading": {str(_id(p)): h.hex() for p, h in sorted(self.headers.items()) if h},
            "writing": [[s, h.hex(), _id(p)] for (s, h), p in sorted(self._writing.items())],
        }
        unfinished = self._file.with_name(f"{self._file.name}.{os.getpid()}.new")
        try:
            unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            unfinished.replace(self._file)
        except OSError as error:
            _logger.warning("file %s: cannot be written (%s); ids are forgotten at the end", self._file, error)


def _id(prefix: bytes) -> int:
    return int.from_bytes(prefix[1:PREFIX_BYTES], "big")


def _our_header(schema: Any) -> tuple[bytes, str]:
    """If a registered schema is one of the ledger's: its single-object header, and an empty text. Otherwise `b""`, and
    the reason in words.

    The fingerprint in the header ignores logical types: a schema with milliseconds, or with a long without a logical
    type, has the same fingerprint as ours with microseconds. So the logical types are compared as well.
    """
    try:
        registered = json.loads(schema.schema_str)
        header = single_object_header(registered)
    except Exception:  # another team may have registered anything, in any schema language
        return _NOT_OURS, "it is no schema of the ledger"
    if header not in writer_schemas():
        return _NOT_OURS, "it is no schema of the ledger"
    ours, theirs = _logical_types(writer_schemas()[header].schema), _logical_types(registered)
    for field in sorted(ours.keys() | theirs.keys()):
        if ours.get(field) != theirs.get(field):
            registered_type = theirs.get(field) or "a plain number without a logical type"
            return _NOT_OURS, f"its {field} is {registered_type}, the ledger's is {ours.get(field) or 'a plain value'}"
    return header, ""


def _logical_types(schema: Any, path: str = "") -> dict[str, str]:
    """The logical types in a schema, by the path of the field that has the type."""
    if isinstance(schema, list):
        return {k: v for branch in schema for k, v in _logical_types(branch, path).items()}
    if not isinstance(schema, dict):
        return {}
    types = {path: schema["logicalType"]} if isinstance(schema.get("logicalType"), str) else {}
    for field in schema.get("fields", ()):
        types |= _logical_types(field["type"], f"{path}.{field['name']}".lstrip("."))
    for part in ("items", "values", "type"):
        types |= _logical_types(schema.get(part), path)
    return types


def _document(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
