"""Where a setting comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.errors import SettingsError
from coupon_ledger.ledger.settings import OPTIONS, LogSettings, Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> Settings:
    return Settings.load(flags or {}, environment or {}, file)


def test_the_defaults_make_a_log_and_a_database_in_the_working_folder() -> None:
    """Else the first command of a new user would need settings."""
    settings = load()
    assert settings.log == LogSettings(url="sqlite:///coupon-ledger.log.db")
    assert settings.database == Path("coupon-ledger.duckdb")
    assert {s.origin for s in settings.values.values()} == {"default"}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(home: Path, option: Any) -> None:
    """Else an operator's flag would not count, and nobody could say why."""
    number = isinstance(option.default, int)
    legal = {
        "zone": ["Europe/Berlin", "Asia/Tokyo", "UTC"],
        "lang": ["en", "zh", ""],
        "private-files": ["false", "true", "false"],
    }
    values: list[Any] = [3, 2, 1] if number else legal.get(option.name, ["flag", "environment", "file"])
    path = home / "settings.toml"
    path.write_text(f"[coupon-ledger]\n{option.name} = {values[2]!r}\n")
    variable = "COUPON_LEDGER_" + option.name.upper().replace("-", "_")
    flags, environment = {option.name: str(values[0])}, {variable: str(values[1])}

    def told(**sources: Any) -> tuple[Any, str]:
        setting = load(**sources).values[option.name]
        return setting.value, setting.origin

    assert told(flags=flags, environment=environment, file=path) == (values[0], "flag")
    assert told(flags={option.name: None}, environment=environment, file=path) == (
        values[1],
        f"environment {variable}",
    )
    assert told(file=path) == (values[2], f"file {path}")
    assert told() == (option.default, "default")


@pytest.mark.parametrize(("name", "value"), [("zone", "Mars/Olympus"), ("zone", "../etc"), ("lang", "fr")])
def test_a_zone_or_a_language_that_there_is_not_is_refused(name: str, value: str) -> None:
    """Else days would silently be those of another zone."""
    with pytest.raises(SettingsError, match=f"setting {name} \\(flag\\): '{value}'"):
        load(flags={name: value})


def test_the_file_is_found_by_name_by_variable_and_by_flag(home: Path) -> None:
    """Else a service would start with the settings of another one."""
    for name in ("coupon-ledger.toml", "by-variable.toml", "by-flag.toml"):
        (home / name).write_text(f'[coupon-ledger]\ndatabase = "{name}"\n')
    environment = {"COUPON_LEDGER_CONFIG": "by-variable.toml"}
    assert load().database == Path("coupon-ledger.toml")
    assert load(environment=environment).database == Path("by-variable.toml")
    assert load(environment=environment, file=Path("by-flag.toml")).database == Path("by-flag.toml")
    assert load(environment={"COUPON_LEDGER_CONFIG": ""}).database == Path("coupon-ledger.toml")


def test_kafkas_options_come_through_as_they_are(home: Path) -> None:
    """Else a cluster with TLS and SASL could not be reached."""
    (home / "coupon-ledger.toml").write_text(
        '[kafka]\nsecurity_protocol = "SASL_SSL"\nrequest_timeout_ms = 5000\nssl_check_hostname = false\n'
    )
    settings = load(environment={"COUPON_LEDGER_KAFKA_SASL_PLAIN_PASSWORD": "hush", "COUPON_LEDGER_X": "y"})
    assert settings.log.kafka == {
        "security_protocol": "SASL_SSL",
        "request_timeout_ms": 5000,
        "ssl_check_hostname": False,
        "sasl_plain_password": "hush",
    }
    assert settings.kafka["sasl_plain_password"].origin == "environment COUPON_LEDGER_KAFKA_SASL_PLAIN_PASSWORD"


def test_the_registry_clients_options_come_through_as_they_are(home: Path) -> None:
    """Else a registry with its own certificate could not be reached."""
    (home / "coupon-ledger.toml").write_text(
        '[coupon-ledger]\nschema-registry = "https://r:8081"\n[schema-registry]\n"ssl.ca.location" = "ca.pem"\n'
    )
    settings = load(environment={"COUPON_LEDGER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "ledger:hush"})
    assert settings.log.schema_registry == "https://r:8081"
    assert settings.log.registry == {"ssl.ca.location": "ca.pem", "basic.auth.user.info": "ledger:hush"}


def test_a_file_with_a_byte_order_mark_is_read(home: Path) -> None:
    """Else a file saved by a Windows editor would be called broken at line 1."""
    (home / "coupon-ledger.toml").write_bytes(b"\xef\xbb\xbf[coupon-ledger]\nbatch-size = 5\n")
    assert load().batch_size == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "not TOML"),
        ("[coupon-ledger]\nlog = 1\nlog = 2", "not TOML"),
        ("[coupon-ledger]\nbatchsize = 1", "unknown batchsize; .*batch-size"),
        ("[kafak]", "kafak stands outside; put settings under"),
        ("log = 'x'", "log stands outside; put settings under"),
        ("coupon-ledger = 1", "are tables"),
        ("kafka = 1", "are tables"),
        ("schema-registry = 1", "are tables"),
        ("[[coupon-ledger]]", "are tables"),
        ("[coupon-ledger]\nlog = 5", "setting log .file .*: 5 is no text; put it in quotes"),
        ("[coupon-ledger]\ndatabase = ['a']", "is no text"),
        ("[coupon-ledger]\ndatabase = ''", "is empty"),
        ("[coupon-ledger]\npartitions = 4.7", "4.7 is not a whole number"),
        ("[coupon-ledger]\npartitions = true", "True is not a whole number"),
        ("[coupon-ledger]\npartitions = 0", "0 is not a whole number from 1 to"),
        ("[coupon-ledger]\npartitions = 5000000000", "5000000000 is not a whole number from 1 to"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(home: Path, text: str, words: str) -> None:
    """Else a slip would be ignored, and the ledger would write somewhere else."""
    (home / "bad.toml").write_text(text)
    with pytest.raises(SettingsError, match=words) as raised:
        load(file=Path("bad.toml"))
    assert "bad.toml" in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(home: Path) -> None:
    """Else a mistyped name would silently mean the defaults."""
    (home / "folder").mkdir()
    (home / "latin.toml").write_bytes(b"[coupon-ledger]\nlog = 'caf\xe9'\n")
    for name, words in (("gone.toml", "not there"), ("folder", "cannot be read"), ("latin.toml", "not TOML")):
        with pytest.raises(SettingsError, match=f"settings file {name}: {words}"):
            load(file=Path(name))
        with pytest.raises(SettingsError, match=words):
            load(environment={"COUPON_LEDGER_CONFIG": name})


@pytest.mark.parametrize("number", ["", " ", "0", "-1", "+1", "1.0", "1e3", "1_000", "٣", "many", "9" * 30])
def test_a_number_that_is_none_is_refused_and_named(number: str) -> None:
    """Else `--partitions 1_000` or a stray blank would make a log that cannot be changed any more."""
    with pytest.raises(SettingsError, match=r"setting partitions \(flag\): .* is not a whole number from 1 to"):
        load(flags={"partitions": number})
    with pytest.raises(SettingsError, match="environment COUPON_LEDGER_BATCH_SIZE"):
        load(environment={"COUPON_LEDGER_BATCH_SIZE": number})


def test_an_empty_prefix_is_a_prefix_and_an_empty_address_is_none() -> None:
    """Else a variable that was set to nothing would point at the working folder itself."""
    assert load(environment={"COUPON_LEDGER_TOPIC_PREFIX": ""}).log.topic_prefix == ""
    for name in ("log", "database"):
        with pytest.raises(SettingsError, match=f"setting {name} .flag.: is empty"):
            load(flags={name: ""})
