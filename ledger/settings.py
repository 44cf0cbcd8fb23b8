"""Reads the settings, and records for each where its value comes from. A flag comes first, then an environment
variable, then the TOML file, then the default.

The file is the one that `--config` or `COUPON_LEDGER_CONFIG` names, otherwise `coupon-ledger.toml` in the working
folder. In its table `[coupon-ledger]`, the keys are the names of the flags (`log`, `database`, …). Options of Kafka's
client (TLS, SASL, …) are in the table `[kafka]`, under the names that kafka-python uses, or in variables
`COUPON_LEDGER_KAFKA_<NAME>`. Options of the schema registry's client are in the table `[schema-registry]`, or in
variables `COUPON_LEDGER_SCHEMA_REGISTRY_<NAME>`, with `_` in place of dots.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from coupon_ledger.ledger.errors import SettingsError
from coupon_ledger.ledger.rules import GRACE_MINUTES

DEFAULT_FILE: Final = "coupon-ledger.toml"
DEFAULT_RULES: Final = "defaults"
"""The value of the setting `alert-rules` that stands for the default rules alone."""
NO_RULES: Final = "none"
"""The value of the setting `alert-rules` with which `consume` does not work with alerts."""
ENVIRONMENT_PREFIX: Final = "COUPON_LEDGER_"
KAFKA_PREFIX: Final = "COUPON_LEDGER_KAFKA_"
REGISTRY_PREFIX: Final = "COUPON_LEDGER_SCHEMA_REGISTRY_"
INT32_MAX: Final = 2**31 - 1
_MOST_LINKS: Final = 40
LANGUAGES: Final = ("en", "zh")
_TABLES: Final = ("coupon-ledger", "kafka", "schema-registry")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The address of a log, how its topics are created, and how its messages are read and written.

    `kafka`: options that are passed unchanged to kafka-python's clients (`security_protocol`, `ssl_cafile`,
    `sasl_mechanism`, …). `schema_registry`: the address of a schema registry; if it is not empty, messages are in the
    Confluent wire format. `schema_ids`: the file that remembers the registry's ids. `registry`: options that are passed
    unchanged to the registry's client. `writer_schemas`: a folder with the schemas of newer releases; with it, messages
    written with these schemas can be read. `token`, `ca_file`, `timeout_s`: for publishing over HTTP, as in
    `http_service.Service`.
    """

    url: str = "sqlite:///coupon-ledger.log.db"
    topic_prefix: str = ""
    partitions: int = 4
    replication: int = 1
    kafka: Mapping[str, Any] = field(default_factory=dict)
    schema_registry: str = ""
    schema_ids: str = "coupon-ledger.schema-ids.json"
    registry: Mapping[str, Any] = field(default_factory=dict)
    writer_schemas: str = ""
    token: str = field(default="", repr=False)
    ca_file: str = ""
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that exists: its name, its default, and what it is for (`doc`). If the default is an integer, the value
    must be one."""

    name: str
    default: str | int
    doc: str

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")


OPTIONS: Final = (
    Option(
        "log",
        "sqlite:///coupon-ledger.log.db",
        "address of the event log: sqlite:///path, kafka://host:port,… or https://host",
    ),
    Option("database", "coupon-ledger.duckdb", "path of the DuckDB file with the projections"),
    Option("topic-prefix", "", "prefix of every topic name"),
    Option("partitions", 4, "partitions of a topic when it is created"),
    Option("replication", 1, "replicas of a Kafka topic when it is created"),
    Option("batch-size", 125_000, "maximum number of records per transaction"),
    Option("grace-minutes", GRACE_MINUTES, "how long after an event the rules between topics wait for the other side"),
    Option("instant-skew-days", 400, "count events whose occurred_at and recorded_at are further apart than this"),
    Option("skewed-events", "count", "what to do with them: count (fold them anyway) or dead-letter"),
    Option("schema-registry", "", "address of a schema registry: messages use the Confluent wire format"),
    Option("schema-ids", "coupon-ledger.schema-ids.json", "file that remembers the registry's ids"),
    Option("private-files", "true", "whether files that are made are for their owner alone (0600): true or false"),
    Option("writer-schemas", "", "folder with schemas of newer releases (NAME.avsc) that messages are written with"),
    Option("token", "", "token with which events are published over HTTP"),
    Option("ca-file", "", "PEM file of the authority of the service's certificate, if the system does not know it"),
    Option(
        "alert-rules",
        DEFAULT_RULES,
        "file with alert rules (YAML or TOML); `defaults`: the default rules alone; `none`: consume without alerts",
    ),
    Option("zone", "Asia/Shanghai", "whose days and clocks: a name of the IANA database"),
    Option("lang", "", "language of what is printed for people: en or zh; by default the locale's"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of a setting, and where it comes from: `flag`, `environment NAME`, `file PATH` or `default`."""

    name: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    values: Mapping[str, Setting]
    kafka: Mapping[str, Setting]
    registry: Mapping[str, Setting]

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> Settings:
        """Load all settings. `flags`: values from the command line, by setting. `environment`: the process's own if
        None. `file`: the settings file; if None, it is found as the module's head says. Raises `SettingsError` for a
        missing or broken file, an unknown key, or an invalid value."""
        environment = os.environ if environment is None else environment
        named = file or (Path(p) if (p := environment.get(ENVIRONMENT_PREFIX + "CONFIG")) else None)
        path = named or Path(DEFAULT_FILE)
        table, kafka_table, registry_table = _read_file(path) if named is not None or path.is_file() else ({}, {}, {})
        values = {}
        for option in OPTIONS:
            if flags.get(option.name) is not None:
                raw, origin = flags[option.name], "flag"
            elif option.variable in environment:
                raw, origin = environment[option.variable], f"environment {option.variable}"
            elif option.name in table:
                raw, origin = table[option.name], f"file {path}"
            else:
                raw, origin = option.default, "default"
            values[option.name] = Setting(option.name, _checked(option, _typed(option, raw, origin), origin), origin)
        kafka = {k: Setting(k, v, f"file {path}") for k, v in kafka_table.items()}
        registry = {k: Setting(k, v, f"file {path}") for k, v in registry_table.items()}
        for name, text in environment.items():
            if name.startswith(KAFKA_PREFIX):
                key = name.removeprefix(KAFKA_PREFIX).lower()
                kafka[key] = Setting(key, text, f"environment {name}")
            if name.startswith(REGISTRY_PREFIX):
                key = name.removeprefix(REGISTRY_PREFIX).lower().replace("_", ".")
                registry[key] = Setting(key, text, f"environment {name}")
        return cls(values, kafka, registry)

    @property
    def log(self) -> LogSettings:
        return LogSettings(
            url=self.values["log"].value,
            topic_prefix=self.values["topic-prefix"].value,
            partitions=self.values["partitions"].value,
            replication=self.values["replication"].value,
            kafka={k: s.value for k, s in self.kafka.items()},
            schema_registry=self.values["schema-registry"].value,
            schema_ids=self.values["schema-ids"].value,
            registry={k: s.value for k, s in self.registry.items()},
            writer_schemas=self.values["writer-schemas"].value,
            token=self.values["token"].value,
            ca_file=self.values["ca-file"].value,
        )

    @property
    def database(self) -> Path:
        """The path of the database. If the user's path is a symbolic link, this is the link's target, since the
        generations are in the target's folder."""
        return _followed(Path(self.values["database"].value))

    @property
    def alert_rules(self) -> Path | None:
        """The path of the file with alert rules; None for the default rules alone."""
        path = self.values["alert-rules"].value
        return Path(path) if path not in ("", DEFAULT_RULES, NO_RULES) else None

    @property
    def has_alerts(self) -> bool:
        """Whether `consume` works with alert rules, unless an option says otherwise."""
        return str(self.values["alert-rules"].value) != NO_RULES

    @property
    def private_files(self) -> bool:
        return bool(self.values["private-files"].value == "true")

    @property
    def batch_size(self) -> int:
        return int(self.values["batch-size"].value)

    @property
    def instant_skew(self) -> timedelta:
        return timedelta(days=self.values["instant-skew-days"].value)

    @property
    def refuses_skewed(self) -> bool:
        """Whether skewed events become dead letters: events whose `occurred_at` and `recorded_at` are further apart
        than `instant_skew`. Raises `SettingsError` if the setting `skewed-events` has an unknown value."""
        setting = self.values["skewed-events"]
        if setting.value not in ("count", "dead-letter"):
            raise SettingsError(f"setting skewed-events ({setting.origin}): {setting.value!r}; count or dead-letter")
        return bool(setting.value == "dead-letter")

    @property
    def grace(self) -> timedelta:
        return timedelta(minutes=self.values["grace-minutes"].value)


def _followed(path: Path) -> Path:
    """The path with symbolic links resolved. Not resolved is the link from a database to its live generation, a file
    such as `NAME.gen2` in the same folder."""
    with contextlib.suppress(OSError):  # reported when the file is opened
        for _ in range(_MOST_LINKS):
            if not path.is_symlink() or re.fullmatch(re.escape(path.name) + r"\.gen[0-9]+", str(path.readlink())):
                break
            path = path.parent / path.readlink()
    return path


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"settings file {path}: not there; name another with --config or leave it out") from None
    except OSError as error:
        raise SettingsError(f"settings file {path}: cannot be read ({error.strerror}); name another file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path}: not TOML ({error}); mend that line") from error
    outside = sorted(set(document) - set(_TABLES))
    if outside:
        raise SettingsError(f"settings file {path}: {outside[0]} stands outside; put settings under [coupon-ledger]")
    tables = [document.get(name, {}) for name in _TABLES]
    if not all(isinstance(table, dict) for table in tables):
        names = ", ".join(_TABLES)
        raise SettingsError(f"settings file {path}: {names} are tables; write them as [coupon-ledger]")
    unknown = sorted(set(tables[0]) - {o.name for o in OPTIONS})
    if unknown:
        known = ", ".join(o.name for o in OPTIONS)
        raise SettingsError(f"settings file {path}: unknown {', '.join(unknown)}; [coupon-ledger] knows {known}")
    return tables[0], tables[1], tables[2]


_TRUTHS: Final = ("true", "false")


def _checked(option: Option, value: str | int, origin: str) -> str | int:
    if option.name == "lang" and value not in ("", *LANGUAGES):
        raise SettingsError(f"setting lang ({origin}): {value!r} is no language; write {' or '.join(LANGUAGES)}")
    if option.name == "zone":
        try:
            ZoneInfo(str(value))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError(
                f"setting zone ({origin}): {value!r} is no time zone; write a name of the IANA database, such as"
                " Asia/Shanghai"
            ) from None
    return value


def _typed(option: Option, raw: Any, origin: str) -> str | int:
    name = f"setting {option.name} ({origin})"
    if option.default in _TRUTHS and isinstance(raw, bool):
        raw = str(raw).lower()
    if isinstance(option.default, str):
        if not isinstance(raw, str):
            raise SettingsError(f"{name}: {raw!r} is no text; put it in quotes")
        if option.default and not raw:
            raise SettingsError(f"{name}: is empty; give it a value or leave it out")
        if option.default in _TRUTHS and raw not in _TRUTHS:
            raise SettingsError(f"{name}: {raw!r} is neither true nor false; write one of these")
        return raw
    digits = isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < 10
    number = int(raw) if digits or type(raw) is int else 0
    if not 1 <= number <= INT32_MAX:
        raise SettingsError(f"{name}: {raw!r} is not a whole number from 1 to {INT32_MAX}")
    return number
