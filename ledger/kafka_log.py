"""The log on Apache Kafka, through kafka-python. Only this module, `kafka_reader` and `kafka_restore` use Kafka.

Topics are created without retention limits, and with LogAppendTime: the broker sets `recorded_at` by its own clock, in
milliseconds.

Always true:
- a record is acknowledged only after all in-sync replicas have it (idempotent producer, acks=all);
- only committed records are read, and each batch's checksum is verified;
- topics are created only by `create_topics` and `restore`, never implicitly by a client;
- each client is created when it is first needed. Queries (ends, topics) go through the admin client, which any thread
  may use while another thread reads.
"""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    BrokerNotAvailableError,
    BrokerResponseError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    UnknownBrokerIdError,
    UnknownError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
    for_code,
)
from kafka.net.compat import KafkaNetClient
from kafka.protocol.consumer import IsolationLevel, OffsetSpec
from kafka.structs import OffsetAndMetadata

from coupon_ledger.ledger.errors import (
    AppendFailed,
    LogClosed,
    LogError,
    LogNotAnswering,
    LogNotEmpty,
    LogNotInitialised,
    LogReplaced,
    LogTruncated,
    LogUnavailable,
    SettingsError,
)
from coupon_ledger.ledger.findings import Finding
from coupon_ledger.ledger.log import Chunk, OpenTransaction, Position, Record, StoredRecord, TopicPartition
from coupon_ledger.ledger.partitioner import partitions_of
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS

if TYPE_CHECKING:
    from coupon_ledger.ledger.kafka_reader import Reader

SCHEME: Final = "kafka://"
ANSWER_MS: Final = 8_000
DELIVERY_MS: Final = 30_000
GRACE_S: Final = 2.0  # extra time in which the producer itself reports that a delivery took too long
COLLECT_S: Final = 5.0
"""Minimum time between two garbage collections while the log does not answer."""
PROBE_S: Final = 5.0
RETRY_S: Final = 0.1
_CONNECT_S: Final = 0.5
_SPLIT_S: Final = 0.01
_PASSING: Final = (KafkaConnectionError, NodeNotReadyError, UnknownBrokerIdError, BrokerNotAvailableError)
"""Temporary errors, besides those that the client marks as retriable: a broker is away, or the client does not know
the new leader yet."""
_SIZE_ERRORS: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_USUAL_LIMIT: Final = 1_048_588
"""`max.message.bytes` of a topic, if nobody has set it."""
_RECORD_OVERHEAD: Final = 128
"""Upper bound for the bytes that a batch of one record takes besides its key and value."""
LOOK_S: Final = 1.0
"""How often a reader checks that its topics still exist, while it gets no records."""
CONFIRM_S: Final = 3.0
"""How long a topic must be missing to count as deleted: a broker that is starting may not know it yet."""

_TOPIC_CONFIG: Final = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}
RESTORING: Final = "coupon.restoring"
"""The topic that exists from the beginning of a restore to its end."""
_UNFINISHED: Final = (
    "a restore into it has not ended; wait for it, or where it was interrupted restore again with --anew, which deletes"
    " what it made"
)
_LIMITED: Final = "what is older goes; `coupon-ledger archive` before it does, or keep all"
_WRONG: Final = {
    "message.timestamp.type": "recorded_at would be the producers' clocks",
    "cleanup.policy": "all but the last event of a key would go",
}
# Options that the log's promises rest on. Settings cannot change them.
_FIXED: Final[dict[Any, dict[str, Any]]] = {
    KafkaAdminClient: {},
    KafkaProducer: {
        "acks": "all",
        "enable_idempotence": True,
        "allow_auto_create_topics": False,
        "key_serializer": None,
        "value_serializer": None,
        "transactional_id": None,
    },
    KafkaConsumer: {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "check_crcs": True,
        "allow_auto_create_topics": False,
        "key_deserializer": None,
        "value_deserializer": None,
    },
}
# Defaults that settings may change.
_TUNED: Final[dict[Any, dict[str, Any]]] = {
    KafkaAdminClient: {"request_timeout_ms": ANSWER_MS, "reconnect_backoff_max_ms": 1_000},
    KafkaProducer: {
        "compression_type": "lz4",
        "batch_size": 256 * 1024,
        "max_request_size": 8 * 1024 * 1024,
        "linger_ms": 20,  # `append` flushes: this only lets batches fill while records are handed over
        "request_timeout_ms": 10_000,
        "delivery_timeout_ms": DELIVERY_MS,
        "max_block_ms": ANSWER_MS,
        "reconnect_backoff_max_ms": 1_000,
        "metrics_enabled": False,
    },
    KafkaConsumer: {
        "fetch_max_bytes": 16 * 1024 * 1024,
        "max_partition_fetch_bytes": 2 * 1024 * 1024,
        "request_timeout_ms": 10_000,
        "reconnect_backoff_max_ms": 1_000,
        "metrics_enabled": False,
    },
}
_OWN: Final = frozenset({"bootstrap_servers", "kafka_client", "bootstrap_timeout_ms"}).union(*_FIXED.values())

_log = logging.getLogger(__name__)
Client = TypeVar("Client", KafkaAdminClient, KafkaConsumer, KafkaProducer)


class KafkaLog:
    """The log (`EventLog`) on the Kafka brokers that `settings.url` names, as in `kafka://host:port,host:port`."""

    visible_after_s = 0.1

    def __init__(self, settings: LogSettings) -> None:
        self.url = settings.url
        self._settings = settings
        self._servers = _servers_of(settings.url)
        self._options = {name: _option(name, value) for name, value in settings.kafka.items()}
        self._making = threading.Lock()
        self._clients: dict[type, Any] = {}
        self._closed = False
        self._users: Counter[KafkaAdminClient] = Counter()
        self._known_topics: set[str] = set()
        self._ids: dict[str, str] = {}
        self._reader: Reader | None = None
        self._collected_at = float("-inf")
        self._reading = threading.Lock()
        self._heard_at = 0.0
        self._behind: dict[TopicPartition, int] = {}
        self._answered = False
        """Whether brokers have ever answered at this address. If so, it is right, and later errors may be temporary."""
        self._looked_at = 0.0

    # --- topics

    def create_topics(self) -> list[str]:
        settings = self._settings
        wanted = {
            settings.topic_prefix + topic: {
                "num_partitions": settings.partitions,
                "replication_factor": settings.replication,
                "configs": _TOPIC_CONFIG,
            }
            for topic in ALL_TOPICS
        }
        with self._errors("create topics"):
            existing = set(self._existing([settings.topic_prefix + RESTORING, *wanted]))
            if settings.topic_prefix + RESTORING in existing:
                raise LogNotInitialised(f"log {self.url}: {_UNFINISHED}")
            missing = {name: options for name, options in wanted.items() if name not in existing}
            if not missing:
                return []
            answers = self._query(lambda admin: admin.create_topics(missing, raise_errors=False)["topics"])
            created = [a["name"] for a in answers if not self._exists_already(a)]
            self._query(lambda admin: admin.wait_for_topics(list(wanted)))
        return [name.removeprefix(settings.topic_prefix) for name in created]

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        prefix = self._settings.topic_prefix
        names = [prefix + topic for topic in (RESTORING, *topics)]
        with self._errors("describe topics"):
            described = self._query(lambda admin: _described(admin, names))
        if any(t["name"] == prefix + RESTORING and t["error_code"] == 0 for t in described):
            raise LogNotInitialised(f"log {self.url}: {_UNFINISHED}")
        described = [t for t in described if t["name"] != prefix + RESTORING]
        missing = sorted(t["name"] for t in described if for_code(t["error_code"]) is UnknownTopicOrPartitionError)
        if missing:
            if any(name.removeprefix(prefix) in self._known_topics for name in missing):
                self._check_topics(self._known_topics)
            remedy = "run `coupon-ledger init`"
            if len(missing) < len(described):
                remedy += ", or where it was there before `coupon-ledger restore --topic`"
            raise LogNotInitialised(f"log {self.url}: no topic {', '.join(missing)}; {remedy}")
        for topic in described:
            if topic["error_code"]:
                raise self._unavailable(f"describe topic {topic['name']}", for_code(topic["error_code"])())
        self._known_topics.update(topics)
        return sorted(
            TopicPartition(topic["name"].removeprefix(prefix), partition["partition_index"])
            for topic in described
            for partition in topic["partitions"]
        )

    # --- examining

    def examine(self) -> list[Finding]:
        """Check the ledger's topics that exist: their partitions, replicas and configuration. The log can only keep its
        promises with the right configuration."""
        names = [self._settings.topic_prefix + topic for topic in ALL_TOPICS]
        with self._errors("describe topics"):
            described = {t["name"]: t for t in self._query(lambda admin: admin.describe_topics(names))}
            existing = [name for name in names if described[name]["error_code"] == 0]
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in existing]
            answers = self._query(lambda admin: admin.describe_configs(resources, config_filter="all"))
        configured = answers.get("topic", {})
        findings = []
        for name in existing:
            values = {key: str(option["value"]) for key, option in configured.get(name, {}).items()}
            findings += self._examined(name, described[name]["partitions"], values)
        return findings

    def _examined(self, name: str, partitions: Sequence[Mapping[str, Any]], values: Mapping[str, str]) -> list[Finding]:
        place, tool = f"topic {name}", f"kafka-configs.sh --bootstrap-server {self._servers[0]}"
        findings = []
        for key, expected in _TOPIC_CONFIG.items():
            value = values.get(key, expected)
            if value != expected:
                level, why = ("warning", _LIMITED) if key.startswith("retention") else ("error", _WRONG[key])
                remedy = f"{tool} --alter --entity-type topics --entity-name {name} --add-config {key}={expected}"
                findings.append(Finding(level, place, f"{key} is {value}: {why}", remedy))
        replicas = min(len(p["replica_nodes"]) for p in partitions)
        behind = [p["partition_index"] for p in partitions if len(p["isr_nodes"]) < len(p["replica_nodes"])]
        if replicas < self._settings.replication:
            what = f"{replicas} replicas, and the settings say {self._settings.replication}"
            findings.append(Finding("warning", place, what, "kafka-reassign-partitions.sh, or correct replication"))
        if behind:
            what = f"partitions {behind} have replicas that are behind or gone"
            findings.append(Finding("warning", place, what, f"start the missing brokers of {self.url}"))
        if len(partitions) < self._settings.partitions:
            what = f"{len(partitions)} partitions, and the settings say {self._settings.partitions}"
            remedy = f"set partitions = {len(partitions)}; with more, keys would move between partitions"
            findings.append(Finding("warning", place, what, remedy))
        return findings or [Finding("ok", place, f"{len(partitions)} partitions, {replicas} replicas, kept for ever")]

    # --- restoring

    def restore(
        self,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        chunks: Iterable[Chunk],
        *,
        gapless: bool,
        anew: bool = False,
    ) -> None:
        """Create topics with the records of `chunks`, each at its original partition, offset and instant
        (`kafka_restore`). The arguments are those of `Backend.restore`.

        The topics are created with CreateTime, so that records keep their instants. Since Kafka's timestamps are in ms,
        each record also gets a header with its instant in µs. At the end, the topics are switched to LogAppendTime,
        which all other topics have. Until then the topic `RESTORING` exists, and the log cannot be opened. An
        interrupted restore leaves `RESTORING` and the topics it created; `anew` deletes them.

        Raises `LogNotEmpty` if a topic already exists, or another writer appends to one.
        """
        marker = self._settings.topic_prefix + RESTORING
        names = sorted({self._kafka_partition(tp).topic for tp in ends})
        self._claim(marker, names, anew=anew)
        with ExitStack() as opened, self._errors("restore"):
            transactions = None
            if not gapless:
                transactions = self._connect(KafkaProducer, transactional_id=marker)
                opened.callback(_abandon, transactions)
                # Before the topics are created: this aborts what a killed restore left open in its own topics.
                transactions.init_transactions()
            if anew:
                self._delete(names)
            self._make_for_restoring(Counter(tp.topic for tp in ends))
            from coupon_ledger.ledger.kafka_restore import Placing

            placing = Placing(
                self._settings.topic_prefix,
                self._client(KafkaProducer),
                transactions,
                lambda tp: self.end_positions([tp])[tp],
            )
            placing.place(begins, ends, chunks)
            if heads := {self._kafka_partition(tp): begin for tp, begin in begins.items() if begin}:
                self._query(lambda admin: admin.delete_records(heads))
            self._stamp(names)
            self._delete([marker])

    def _claim(self, marker: str, names: Sequence[str], *, anew: bool) -> None:
        """Create the topic `marker`. Only one restore can create it, so no two restores run at once. With `anew`, a
        marker that exists is taken over. Raises `LogNotEmpty` if it exists and `anew` is not set, or if any of the
        topics `names` exists without it."""
        with self._errors("create topics"):
            existing = self._existing([marker, *names])
            if marker in existing:
                if anew:
                    return
                raise LogNotEmpty(f"log {self.url}: {_UNFINISHED}")
            if existing:
                raise LogNotEmpty(
                    f"log {self.url}: topic {existing[0]} is there already, and its records would get new instants;"
                    " delete the topics, or restore with another --topic-prefix"
                )
            self._make({marker: {"num_partitions": 1, "replication_factor": self._settings.replication}})

    def _make_for_restoring(self, partitions: Mapping[str, int]) -> None:
        self._make(
            {
                self._settings.topic_prefix + topic: {
                    "num_partitions": number,
                    "replication_factor": self._settings.replication,
                    "configs": _TOPIC_CONFIG | {"message.timestamp.type": "CreateTime"},
                }
                for topic, number in partitions.items()
            }
        )

    def _make(self, topics: Mapping[str, Mapping[str, Any]]) -> None:
        answers = self._query(lambda admin: admin.create_topics(topics, raise_errors=False)["topics"])
        if existing := [answer["name"] for answer in answers if self._exists_already(answer)]:
            raise LogNotEmpty(
                f"log {self.url}: topic {existing[0]} was made meanwhile; another restore may be under way"
            )
        self._query(lambda admin: admin.wait_for_topics(list(topics)))

    def _stamp(self, names: Sequence[str]) -> None:
        """Switch the topics to LogAppendTime: from now on, the broker sets the timestamps of appended records."""
        stamped = {"message.timestamp.type": _TOPIC_CONFIG["message.timestamp.type"]}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, stamped) for name in names]
        answers = self._query(lambda admin: admin.alter_configs(resources, raise_on_unknown=False))["topic"]
        if refused := {name: answer for name, answer in answers.items() if answer != "OK"}:
            raise LogUnavailable(
                f"log {self.url}: the topics keep CreateTime ({refused}); make sure that message.timestamp.type may be"
                " set on them, and restore again with --anew"
            )

    def _existing(self, names: Sequence[str]) -> list[str]:
        described = self._query(lambda admin: admin.describe_topics(list(names)))
        return [t["name"] for t in described if t["error_code"] == 0]

    def _delete(self, names: Sequence[str]) -> None:
        if existing := self._existing(names):
            self._query(lambda admin: admin.delete_topics(existing))
        deadline = time.monotonic() + ANSWER_MS / 1000
        while existing := self._existing(names):
            if time.monotonic() > deadline:
                raise KafkaTimeoutError(f"topic {existing[0]} is still there after it was deleted")
            time.sleep(RETRY_S)

    # --- append

    def append(self, records: Sequence[Record]) -> list[Position]:
        if not records:
            return []
        # Query the brokers first: a producer would wait for a missing topic until it times out.
        if unknown := {r.topic for r in records} - self._known_topics:
            self.partitions(sorted(unknown))
        producer = self._client(KafkaProducer)
        sent, errors = self._send(producer, records)
        self._wait_for_answers(producer)
        positions = []
        for index, (record, future) in enumerate(zip(records, sent, strict=True)):
            if future is None:
                continue
            if future.is_done and future.succeeded():
                metadata = future.value
                positions.append(Position(record.topic, metadata.partition, metadata.offset))
            else:
                errors[index] = future.exception
        if errors:
            self._raise_append_failed(producer, records, errors)
        return positions

    def _wait_for_answers(self, producer: KafkaProducer) -> None:
        """Wait until every record that was sent is acknowledged or refused. Gives up shortly after the delivery
        timeout."""
        deadline = time.monotonic() + self._options.get("delivery_timeout_ms", DELIVERY_MS) / 1000 + GRACE_S
        while True:
            try:
                producer.flush(timeout=max(0.0, deadline - time.monotonic()))
                return
            except KafkaTimeoutError:
                _log.warning("log %s: flush timed out", self.url)
                return
            except UnknownError:
                # While `flush` waited for a batch, the client split it, since it was too large for the topic. Wait for
                # the smaller batches.
                if time.monotonic() > deadline:
                    return
                time.sleep(_SPLIT_S)

    def _send(
        self, producer: KafkaProducer, records: Sequence[Record]
    ) -> tuple[list[Any | None], dict[int, Exception | None]]:
        """Hand the records to the producer. Returns a list with one future per record (None if the producer refused the
        record), and the errors of refused records by their index."""
        prefix = self._settings.topic_prefix
        errors: dict[int, Exception | None] = {}
        sent: list[Any | None] = []
        partitions = self._partitions_for(producer, records)
        for index, (record, partition) in enumerate(zip(records, partitions, strict=True)):
            try:
                sent.append(producer.send(prefix + record.topic, record.value, record.key, None, partition))
            except (KafkaError, ValueError) as error:
                sent.append(None)
                errors[index] = error
        return sent, errors

    def _partitions_for(self, producer: KafkaProducer, records: Sequence[Record]) -> list[int]:
        """The partition of each record. All keys of a topic are hashed at once."""
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(records):
            rows.setdefault(record.topic, []).append(row)
        partitions = [0] * len(records)
        with self._errors("append"):
            for topic, indexes in rows.items():
                number = len(producer.partitions_for(self._settings.topic_prefix + topic))
                numbers = partitions_of([records[i].key for i in indexes], number)
                for row, partition in zip(indexes, numbers, strict=True):
                    partitions[row] = partition
        return partitions

    def _raise_append_failed(
        self, producer: KafkaProducer, records: Sequence[Record], errors: Mapping[int, Exception | None]
    ) -> None:
        """Raise `AppendFailed`, and drop the producer: its sequence numbers may have a gap now. The next append creates
        a new producer. `errors`: the error of each record that failed, by its index; None if no answer came."""
        with self._making:
            self._clients.pop(KafkaProducer, None)
        most_bytes = int(producer.config["max_request_size"])
        _abandon(producer)
        self._collect_sockets()
        too_large = self._too_large(records, errors, most_bytes)
        failures = {index: too_large.get(index) or _reason(errors[index]) for index in sorted(errors)}
        raise AppendFailed(f"log {self.url}: {_failures_in_words(records, failures, too_large)}", failures, too_large)

    def _too_large(
        self, records: Sequence[Record], errors: Mapping[int, Exception | None], most_bytes: int
    ) -> dict[int, str]:
        """The records that were refused for their size: by index, the size and the limit in words. `most_bytes`: the
        producer's own limit."""
        refused = {i for i, error in errors.items() if isinstance(error, _SIZE_ERRORS)}
        limits = {topic: self._message_limit(topic) for topic in {records[i].topic for i in refused}}
        too_large = {}
        for index in sorted(refused):
            topic, size = records[index].topic, len(records[index].key) + len(records[index].value)
            limit = limits[topic]
            if size + _RECORD_OVERHEAD > most_bytes:
                too_large[index] = (
                    f"{size:,} bytes are more than a publisher sends ({most_bytes:,}, Kafka's option max_request_size);"
                    " split the event"
                )
            elif size + _RECORD_OVERHEAD > (limit or _USUAL_LIMIT):
                held = f"{limit:,}" if limit else f"{_USUAL_LIMIT:,} (Kafka's default; the topic's is not readable)"
                too_large[index] = (
                    f"{size:,} bytes do not fit, even compressed, into the topic's max.message.bytes of {held}; split"
                    " the event, or have the limit raised"
                )
            # Otherwise the record fits: it shared a batch that was too large and was not split before the delivery
            # timeout. It can be appended again.
        return too_large

    def _message_limit(self, topic: str) -> int | None:
        """The topic's `max.message.bytes`. None if it cannot be read, for example without the right to describe the
        topic's configuration."""
        name, key = self._settings.topic_prefix + topic, "max.message.bytes"
        resource = ConfigResource(ConfigResourceType.TOPIC, name, [key])
        try:
            answer = self._query(lambda admin: admin.describe_configs([resource], config_filter="all"))
            return int(answer["topic"][name][key]["value"])
        except (KafkaError, OSError, LogError, KeyError, TypeError, ValueError) as error:
            _log.info("log %s: %s of topic %s cannot be described: %s", self.url, key, name, error)
            return None

    # --- read

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        if not positions:
            return []
        with self._reading, self._errors("read"):
            if self._reader is None:
                from coupon_ledger.ledger.kafka_reader import Reader

                self._reader = Reader(self._client(KafkaConsumer), self._settings.topic_prefix)
                self._heard_at = time.monotonic()
            try:
                chunks = self._reader.read(positions, max_records, timeout_s)
            except (OffsetOutOfRangeError, LogTruncationError) as error:
                self._reader.forget()
                raise self._truncated(positions) from error
            except BaseException:
                # Records were taken from its buffers but not returned: fetch them again.
                self._reader.forget()
                raise
        if chunks or time.monotonic() - self._looked_at > LOOK_S:
            self._look(chunks, {tp.topic for tp in positions})
        self._notice_silence(bool(chunks), positions)
        return chunks

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._offsets(partitions, OffsetSpec.EARLIEST)

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        # With READ_COMMITTED: the end that readers reach, which is at the first record of an open transaction.
        return self._offsets(partitions, OffsetSpec.LATEST)

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._offsets(partitions, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)

    def open_transactions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[OpenTransaction]]:
        """See `Backend.open_transactions`. Empty if the brokers are older than Kafka 3.0, or without the right to
        describe producers."""
        named = {self._kafka_partition(tp): tp for tp in partitions}
        try:
            answers = self._query(lambda admin: admin.describe_producers(list(named)))
        except (KafkaError, OSError) as error:
            _log.info("log %s: producers cannot be described: %s", self.url, error)
            return {}
        open_by_partition = {
            named[partition]: [
                OpenTransaction(p.producer_id, p.current_transaction_start_offset, p.last_timestamp)
                for p in state.active_producers
                if p.current_transaction_start_offset >= 0
            ]
            for partition, state in answers.items()
        }
        return {tp: sorted(open_, key=lambda o: o.first_offset) for tp, open_ in open_by_partition.items() if open_}

    def identities(self) -> dict[str, str]:
        prefix = self._settings.topic_prefix
        with self._errors("describe topics"):
            described = self._query(lambda admin: admin.describe_topics([prefix + topic for topic in ALL_TOPICS]))
        ids = {t["name"].removeprefix(prefix): _id_of(t) for t in described if t["error_code"] == 0}
        return {topic: topic_id for topic, topic_id in ids.items() if topic_id}

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        partitions = list(positions)
        earliest, ends = self.earliest_positions(partitions), self.end_positions(partitions)
        at = {tp: offset for tp, offset in positions.items() if earliest[tp] <= offset < ends[tp]}
        wanted, stored = dict(at), {}
        deadline = time.monotonic() + ANSWER_MS / 1000
        while missing := [tp for tp, offset in wanted.items() if at[tp] == offset]:
            for chunk in self.read(at, len(at), RETRY_S):
                tp = TopicPartition(chunk.topic, chunk.partition)
                if len(chunk) and at[tp] == wanted[tp] == int(chunk.offsets[0]):
                    stored[tp] = StoredRecord(int(chunk.recorded_at[0]), chunk.keys[0], chunk.values[0])
                at[tp] = chunk.next_offset
            if time.monotonic() > deadline and missing:
                tp = missing[0]
                raise LogUnavailable(
                    f"log {self.url}: partition {tp.partition} of {tp.topic} gives no record from offset {wanted[tp]}"
                    f" on, though it ends at {ends[tp]}; check the broker that leads it"
                )
        return stored

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        with self._reading:
            return {} if self._reader is None else self._reader.next_recorded(positions)

    def commit_group(self, positions: Mapping[TopicPartition, int], group: str) -> str | None:
        """Commit `positions` as the next offsets of the consumer group `group`. Only tools that show lag read them.
        Returns the reason if this fails, otherwise None."""
        offsets = {self._kafka_partition(tp): OffsetAndMetadata(offset, "", -1) for tp, offset in positions.items()}
        try:
            with self._errors("commit group offsets"):
                answers = self._query(lambda admin: admin.alter_group_offsets(group, offsets))
        except LogError as error:
            _log.info("group %s: %s", group, error)
            return str(error)
        refused = sorted({answer.__name__ for answer in answers.values() if answer.errno})
        return f"group {group}: {', '.join(refused)}" if refused else None

    def close(self) -> None:
        with self._making:
            self._closed = True
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            if isinstance(client, KafkaProducer):
                client.close(timeout=ANSWER_MS / 1000)
            else:
                client.close()
        self._reader = None

    def _offsets(
        self,
        partitions: Sequence[TopicPartition],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        specs = {self._kafka_partition(tp): spec for tp in partitions}
        names = sorted({named.topic for named in specs})

        def offsets(admin: KafkaAdminClient) -> Any:
            try:
                return admin.list_partition_offsets(specs, isolation, ANSWER_MS)
            except UnknownTopicOrPartitionError as error:
                # A broker that has just become the leader raises this too.
                if len([t for t in admin.describe_topics(names) if t["error_code"] == 0]) < len(names):
                    raise
                raise BrokerNotAvailableError(str(error)) from error

        with self._errors("ask for offsets"):
            answers = self._query(offsets)
        return {tp: answers[self._kafka_partition(tp)].offset for tp in partitions}

    def _truncated(self, positions: Mapping[TopicPartition, int]) -> LogError:
        partitions = list(positions)
        earliest, end = self.earliest_positions(partitions), self.end_positions(partitions)
        lost = [tp for tp in partitions if not earliest[tp] <= positions[tp] <= end[tp]]
        held = "; ".join(
            f"partition {tp.partition} of {tp.topic} has no offset {positions[tp]}, it holds"
            f" {earliest[tp]} to {end[tp]}"
            for tp in lost or partitions
        )
        return LogTruncated(f"log {self.url}: {held}; rebuild from the log's start or restore the log")

    def _look(self, chunks: Sequence[Chunk], topics: Iterable[str]) -> None:
        """Check that the topics of a read were not deleted or recreated. The check comes after `chunks` were read and
        before they are returned, so that no record of a recreated topic is ever returned.

        Raises `LogReplaced`. If the brokers do not answer, nothing is raised: `_notice_silence` handles that.
        """
        try:
            self._check_topics(topics)
        except (KafkaError, OSError) as error:
            _log.info("log %s: topics cannot be described now: %s", self.url, error)
            if chunks:
                return  # they are checked again with the next chunks
        self._looked_at = time.monotonic()

    def _check_topics(self, topics: Iterable[str]) -> None:
        """Raises `LogReplaced` if one of these topics existed earlier and was then deleted or recreated."""
        names = [self._settings.topic_prefix + topic for topic in sorted(topics)]
        deadline = time.monotonic() + CONFIRM_S
        while changed := self._changed(names):
            if time.monotonic() > deadline:
                raise LogReplaced(
                    f"log {self.url}: {changed} while it was read; restore it from an archive"
                    " (`coupon-ledger restore --topic`), and start again"
                )
            time.sleep(RETRY_S)

    def _changed(self, names: Sequence[str]) -> str | None:
        # Queried once, without retries: a reader must be able to end even if no broker can be reached.
        for topic in self._client(KafkaAdminClient).describe_topics(list(names)):
            name, error = topic["name"], for_code(topic["error_code"])
            plain, topic_id = name.removeprefix(self._settings.topic_prefix), _id_of(topic)
            if error is UnknownTopicOrPartitionError and plain in self._known_topics:
                return f"topic {name} was deleted"
            if topic["error_code"] == 0:
                self._known_topics.add(plain)
                if topic_id and self._ids.setdefault(plain, topic_id) != topic_id:
                    return f"topic {name} was deleted and created again"
        return None

    def _notice_silence(self, answered: bool, positions: Mapping[TopicPartition, int]) -> None:
        """If no records arrive for `PROBE_S`, query the brokers, since the consumer does not report brokers that are
        gone. Raises `LogNotAnswering` if they do not answer.

        If two such queries in a row show more records in the log, although none arrived, the next read uses a new
        consumer. `answered`: whether the last read returned something.
        """
        now = time.monotonic()
        if answered:
            self._heard_at, self._behind = now, {}
        elif now - self._heard_at > PROBE_S:
            ends = self.end_positions(list(positions))
            behind = {tp: offset for tp, offset in positions.items() if offset < ends[tp]}
            if behind and behind == self._behind:
                _log.info("log %s: nothing came for %.0f s; connecting anew", self.url, 2 * PROBE_S)
                self._renew_reader()
            self._heard_at, self._behind = time.monotonic(), behind

    def _renew_reader(self) -> None:
        with self._reading:
            self._reader = None
            with self._making:
                consumer = self._clients.pop(KafkaConsumer, None)
            if consumer is not None:
                with suppress(KafkaError, OSError):
                    consumer.close()

    # --- clients

    def _kafka_partition(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._settings.topic_prefix + tp.topic, tp.partition)

    def _client(self, kind: type[Client]) -> Client:
        with self._making:
            if self._closed:
                raise LogClosed(f"log {self.url}: closed; open it again")
            if kind not in self._clients:
                self._clients[kind] = self._connect(kind)
            client: Client = self._clients[kind]
            return client

    def _connect(self, kind: type[Client], **more: Any) -> Client:
        connections: list[KafkaNetClient] = []

        def connection(**configs: Any) -> KafkaNetClient:
            connections.append(KafkaNetClient(**configs))
            return connections[-1]

        client_options = {k: v for k, v in self._options.items() if k in kind.DEFAULT_CONFIG}
        reasons = _LastReason()
        try:
            with reasons.heard():
                return kind(
                    bootstrap_servers=self._servers,
                    bootstrap_timeout_ms=ANSWER_MS,
                    kafka_client=connection,
                    **_TUNED[kind] | client_options | _FIXED[kind] | more,
                )
        except Exception as error:
            # A client whose constructor fails leaves its thread and sockets behind.
            for left in connections:
                left.close()
            if isinstance(error, KafkaTimeoutError):
                raise self._unavailable("connect", error, reasons.last) from error
            raise SettingsError(f"settings for Kafka: {error}; see kafka-python's options") from error

    def _query(self, query: Callable[[KafkaAdminClient], Any]) -> Any:
        """Call `query` with the admin client, and return the answer. Tries again for a while if brokers are away or
        leaders change."""
        deadline = time.monotonic() + ANSWER_MS / 1000
        while True:
            try:
                with self._admin() as admin:
                    answer = query(admin)
            except (KafkaError, OSError) as error:
                if not _refused_for_now(error):
                    raise
                if time.monotonic() > deadline:
                    self._give_up_admin()
                    raise
                time.sleep(RETRY_S)
            else:
                self._answered = True
                return answer

    def _give_up_admin(self) -> None:
        """Drop the admin client, since all brokers that it knows may be gone. The next query starts again with the
        servers in the address."""
        with self._making:
            admin = self._clients.pop(KafkaAdminClient, None)
            unused = admin is not None and not self._users[admin]
        if unused:
            with suppress(KafkaError, OSError):
                admin.close()

    @contextmanager
    def _admin(self) -> Iterator[KafkaAdminClient]:
        """Yields the admin client. Within the block, it is not closed, even if another thread drops it. The last thread
        that uses a dropped client closes it."""
        admin = self._client(KafkaAdminClient)
        with self._making:
            self._users[admin] += 1
        try:
            yield admin
        finally:
            with self._making:
                self._users[admin] -= 1
                unused = not self._users[admin] and self._clients.get(KafkaAdminClient) is not admin
                if not self._users[admin]:
                    del self._users[admin]
            if unused:
                with suppress(KafkaError, OSError):
                    admin.close()

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except UnknownTopicOrPartitionError as error:
            if self._known_topics:
                with suppress(KafkaError, OSError):
                    self._check_topics(self._known_topics)
                raise self._unavailable(doing, error) from error
            raise LogNotInitialised(f"log {self.url}: {error}; run `coupon-ledger init`") from error
        except UnsupportedCodecError as error:
            raise LogUnavailable(f"log {self.url}: cannot {doing}: {error}") from error
        except (KafkaError, OSError) as error:
            raise self._unavailable(doing, error) from error

    def _collect_sockets(self) -> None:
        """Run the garbage collector, at most every `COLLECT_S`. It closes the sockets of refused connections, which
        kafka-python leaves open.

        While the brokers are away, the collector rarely runs by itself: a process that waited for half an hour had more
        than a thousand open sockets, and could open no more files.
        """
        if time.monotonic() - self._collected_at >= COLLECT_S:
            gc.collect()
            self._collected_at = time.monotonic()

    def _unavailable(self, doing: str, error: Exception, reason: str = "") -> LogUnavailable:
        self._collect_sockets()
        passing = self._answered and _may_pass(error)
        why = ", ".join([reason or _reason(error), *(self._away() if passing else ())])
        return (LogNotAnswering if passing else LogUnavailable)(
            f"log {self.url}: cannot {doing}: {why}; check the address, the network and that the broker runs"
        )

    def _away(self) -> list[str]:
        """What is unreachable now, in words: servers that refuse connections, and topics with partitions that have no
        leader. Includes only what the client knows of the cluster."""
        servers = set(self._servers)
        admin = self._clients.get(KafkaAdminClient)
        if admin is not None:
            servers |= {f"{broker.host}:{broker.port}" for broker in admin._manager.cluster.brokers()}
        away = {server: why for server in sorted(servers) if (why := _why_not_connected(server))}
        problems = [f"no connection to {server} ({why})" for server, why in away.items()]
        if admin is not None and len(away) < len(servers):
            names = [self._settings.topic_prefix + topic for topic in sorted(self._known_topics)]
            with suppress(KafkaError, OSError):
                for topic in admin.describe_topics(names):
                    numbers = sorted(p["partition_index"] for p in topic["partitions"] if p["leader_id"] < 0)
                    if numbers:
                        problems.append(f"no leader for {topic['name']} {' '.join(map(str, numbers))}")
        return problems

    def _exists_already(self, answer: Mapping[str, Any]) -> bool:
        """Whether a topic that was to be created exists already, since another process created it first. `answer`: the
        broker's answer for this topic. Raises `LogUnavailable` if the topic could not be created for another reason."""
        error = for_code(answer["error_code"])
        if error.errno and error is not TopicAlreadyExistsError:
            raise self._unavailable(f"create topic {answer['name']}", error(answer["error_message"]))
        return error is TopicAlreadyExistsError


def _id_of(topic: Mapping[str, Any]) -> str:
    """The topic's id, from its description by the broker. Empty if the broker gives it none (before Kafka 2.8)."""
    topic_id = str(topic.get("topic_id") or "")
    return topic_id if topic_id.strip("-0") else ""


# --- options


def _servers_of(url: str) -> list[str]:
    servers = url.removeprefix(SCHEME).split(",")
    for server in servers:
        host, colon, port = server.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit()):
            raise SettingsError(f"log address {url!r}: {server!r} is not host:port")
    return servers


def _option(name: str, value: Any) -> Any:
    """The value of the Kafka option `name` from the settings, as kafka-python's clients expect it. A text is converted
    to the type of the option's default. Raises `SettingsError` for an unknown option, one that the ledger sets itself,
    or a value of the wrong type."""
    defaults = [kind.DEFAULT_CONFIG[name] for kind in _FIXED if name in kind.DEFAULT_CONFIG]
    if name in _OWN:
        raise SettingsError(f"settings for Kafka: {name} is set by the ledger itself; leave it out")
    if not defaults:
        raise SettingsError(f"settings for Kafka: unknown option {name}; see kafka-python's options")
    if not isinstance(value, str):
        return value
    parse = _PARSERS.get(type(defaults[0]), str)
    if defaults[0] is None and name.endswith(("_bytes", "_ms")):
        parse = int
    try:
        return parse(value)
    except ValueError as error:
        raise SettingsError(f"settings for Kafka: {name} = {value!r} is not a {parse.__name__.strip('_')}") from error


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_PARSERS: Final[Mapping[type, Callable[[str], Any]]] = {bool: _boolean, int: int, float: float}


class _LastReason(logging.Handler):
    """A log handler that remembers why the last attempt to connect failed. kafka-python only logs that reason and then
    raises 'timed out'."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args or ():
            if isinstance(argument, Exception) and not isinstance(argument, KafkaTimeoutError):
                self.last = _reason(argument)

    @contextmanager
    def heard(self) -> Iterator[None]:
        logger = logging.getLogger("kafka.net.manager")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


def _abandon(producer: KafkaProducer) -> None:
    """Close the producer and give up its unsent records. Its own `close` would first wait for them, and then raise."""
    producer._sender.force_close()
    producer._sender.join(ANSWER_MS / 1000)
    with suppress(KafkaTimeoutError):
        producer.close(timeout=0)


def _described(admin: KafkaAdminClient, names: Sequence[str]) -> list[dict[str, Any]]:
    """The brokers' descriptions of the topics. If a topic's error code means a temporary error, that error is raised,
    so that `_query` tries again."""
    topics: list[dict[str, Any]] = admin.describe_topics(list(names))
    for topic in topics:
        error = for_code(topic["error_code"])
        if error is not UnknownTopicOrPartitionError and _may_pass(error()):
            raise error(topic["name"])
    return topics


def _refused_for_now(error: Exception) -> bool:
    """Whether the error means that no broker served the request and that the next attempt may succeed."""
    return isinstance(error, _PASSING) or (isinstance(error, BrokerResponseError) and _may_pass(error))


def _may_pass(error: Exception) -> bool:
    """Whether the error is temporary: the same request can succeed later, with the same address and rights."""
    if isinstance(error, UnknownTopicOrPartitionError):
        return False
    return isinstance(error, (*_PASSING, OSError)) or bool(getattr(error, "retriable", False))


def _why_not_connected(server: str) -> str | None:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _failures_in_words(records: Sequence[Record], failures: Mapping[int, str], too_large: Mapping[int, str]) -> str:
    """What went wrong with a batch, in words: how many records are too large, and how many others were not
    acknowledged."""
    parts = []
    if too_large:
        first = min(too_large)
        parts.append(
            f"{len(too_large)} of {len(records)} records are too large, the first of key"
            f" {records[first].key.decode(errors='replace')} of {records[first].topic}: {too_large[first]}"
        )
    if others := [reason for index, reason in failures.items() if index not in too_large]:
        parts.append(
            f"{len(others)} of {len(records)} records were not acknowledged ({others[0]});"
            " append them again with the same event_id"
        )
    return "; ".join(parts)


def _reason(error: BaseException | None) -> str:
    if error is None or isinstance(error, KafkaTimeoutError):
        return "broker not reachable: no acknowledgement in time"
    return f"{type(error).__name__}: {error}"
