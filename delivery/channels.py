"""Channels: where messages about alerts go, and what each may be sent.

A channel is data. Its secret is never part of the rules file: the file names an environment variable or another file.
`read` takes the channels of a rules file as plain mappings; a channel with a problem is left out, with a sentence that
says why, and the others work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, field_validator

from coupon_ledger.delivery.kinds import MAIL, WEBHOOK, Kind, apprises, kind_of
from coupon_ledger.ledger.errors import masked
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.rules import SEVERITIES, Name, Severity
from coupon_ledger.projections.alerts.troubles import own_field

PLACE: Final = "{secret}"
"""Where the secret goes in an address."""
MASK: Final = "********"
MOST_SECRET_BYTES: Final = 10_000
_PARTS: Final = re.compile(r"[/@:?&=]")
_SECONDS: Final = re.compile(r"^(\d{1,4}(?:\.\d{1,3})?)\s*s?$")


class QuietHours(BaseModel):
    """A time of the day, from `starts` (inclusive) to `ends` (exclusive), by the clock of the channel's zone. It may go
    over midnight."""

    model_config = ConfigDict(frozen=True)
    starts: time
    ends: time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read `22:00-08:00`. Raises `ValueError` if it is something else."""
        starts, dash, ends = text.partition("-")
        hours = cls(starts=time.fromisoformat(starts.strip()), ends=time.fromisoformat(ends.strip()))
        if not dash or hours.starts == hours.ends or hours.starts.tzinfo or hours.ends.tzinfo:
            raise ValueError(text)
        return hours

    def end(self, local: datetime) -> datetime | None:
        """The local time at which the quiet hours end that `local` is in; None outside of them."""
        clock = local.time()
        if self.starts < self.ends:
            return datetime.combine(local.date(), self.ends) if self.starts <= clock < self.ends else None
        if clock < self.ends:
            return datetime.combine(local.date(), self.ends)
        return datetime.combine(local.date() + timedelta(days=1), self.ends) if clock >= self.starts else None


class Channel(BaseModel):
    """A destination of messages.

    `url`: an address of apprise or of a webhook, with `{secret}` in the place of the secret. `language`, `zone`: in
    which messages are written. `personal_data`: whether messages may have data about persons (user ids, devices,
    addresses of the network, phone prefixes, codes of coupons). `per_minute`: how many messages it takes a minute; by
    default, as many as its kind of destination does. `quiet`: hours in which only messages of severity `urgent` and
    above are sent; the others wait. `timeout`: seconds that one attempt may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    name: Name
    url: Annotated[str, StringConstraints(min_length=4, max_length=2_000)]
    secret: SecretStr | None = None
    language: Literal["en", "zh"] = "en"
    zone: Annotated[str, StringConstraints(max_length=60)] = "Asia/Shanghai"
    personal_data: bool = False
    per_minute: Annotated[int, Field(ge=1, le=6_000)] | None = None
    quiet: QuietHours | None = None
    urgent: Severity = "critical"
    timeout: Annotated[float, Field(ge=0.1, le=60)] = 10.0

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (OSError, ValueError, LookupError):
            raise ValueError(f"{zone!r} is no time zone; use a name such as Asia/Shanghai") from None
        return zone

    @field_validator("quiet", mode="before")
    @classmethod
    def _hours(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return QuietHours.parse(value)
        except ValueError:
            raise ValueError("quiet hours are written as 22:00-08:00") from None

    @field_validator("timeout", mode="before")
    @classmethod
    def _in_seconds(cls, value: object) -> object:
        if isinstance(value, timedelta):
            return value.total_seconds()
        match = _SECONDS.match(value) if isinstance(value, str) else None
        return float(match[1]) if match else value

    @property
    def kind(self) -> Kind:
        kind = kind_of(self.url)
        assert kind is not None  # checked by `read`
        return kind

    @property
    def rate(self) -> int:
        """How many messages the channel takes a minute."""
        return self.per_minute or self.kind.per_minute

    def address(self) -> str:
        """The address with the secret in its place. Not for people: see `mask`."""
        secret = self.secret.get_secret_value() if self.secret else ""
        # Before an @ it is a password, and must not end there; elsewhere it may be several parts of an address.
        safe = "" if f"{PLACE}@" in self.url else "/@:"
        return apprises(self.url.replace(PLACE, quote(secret, safe=safe)))

    def mask(self, text: str) -> str:
        """The text with asterisks in place of the secret, also if only a part of it or its encoded form is there."""
        secret = self.secret.get_secret_value() if self.secret else ""
        parts = {secret, *(part for part in _PARTS.split(secret) if len(part) >= 4)}
        for part in sorted({*parts, *(quote(p, safe="") for p in parts), *(quote(p) for p in parts)}, key=len)[::-1]:
            text = text.replace(part, MASK) if part else text
        return masked(text)

    def quiet_until(self, at: datetime, severity: Severity) -> datetime | None:
        """Until when a message of this severity has to wait at the instant `at` (aware). None if it need not."""
        if self.quiet is None or SEVERITIES.index(severity) <= SEVERITIES.index(self.urgent):
            return None
        zone = ZoneInfo(self.zone)
        end = self.quiet.end(at.astimezone(zone).replace(tzinfo=None))
        return None if end is None else max(end.replace(tzinfo=zone).astimezone(UTC), at)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a channel of the rules file. `file`, `line`: where, if it is known. `text`: a sentence with
    remedy."""

    channel: str
    text: Note
    line: int | None = None
    file: str = ""

    def __str__(self) -> str:
        return str(self.note())

    def note(self) -> Note:
        if self.line is None:
            return note("{file}: {problem}", file=self.file, problem=self.text) if self.file else self.text
        if not self.file:
            return note("line {line}: {problem}", line=self.line, problem=self.text)
        return note("{file} line {line}: {problem}", file=self.file, line=self.line, problem=self.text)


Lines = Mapping[tuple[str, ...], int]
"""The line of a channel (`(name,)`) or of one of its fields (`(name, field)`)."""


def read(
    channels: object,
    lines: Lines | None = None,
    *,
    file: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    language: str = "en",
    zone: str = "Asia/Shanghai",
) -> tuple[dict[str, Channel], list[Problem]]:
    """The channels of a rules file, by name, and what is wrong with the others.

    `channels`: for each name, its fields: those of `Channel` without `name`, with `secret: {env: NAME}` or
    `secret: {file: PATH}`. `lines`: the lines of channels and fields. `file`: what problems call the
    file. `folder`: the one that paths are relative to; by
    default the working folder. `environment`: by default the environment of the process. `language`, `zone`: of
    channels that name none.
    """
    if channels is None:
        return {}, []
    if not isinstance(channels, Mapping):
        return {}, [Problem("", note("channels: not a mapping; write a name and below it url and secret"), None, file)]
    reader = _Reader(lines or {}, file, folder or Path(), os.environ if environment is None else environment)
    good = {}
    for name, fields in channels.items():
        channel = reader.read(str(name), fields, {"language": language, "zone": zone})
        if channel is not None:
            good[channel.name] = channel
    return good, reader.problems


_FIELDS: Final = tuple(name for name in Channel.model_fields if name != "name")
"""The fields of a channel in the file."""


class _Reader:
    def __init__(self, lines: Lines, file: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._lines, self._file, self._folder, self._environment = lines, file, folder, environment
        self.problems: list[Problem] = []

    def read(self, name: str, fields: object, defaults: Mapping[str, str]) -> Channel | None:
        if not isinstance(fields, Mapping):
            self._wrong(name, "", note("no fields; write url and secret below it"))
            return None
        found = len(self.problems)
        values = {**defaults, **{str(key): value for key, value in fields.items()}, "name": name}
        kind = self._kind(name, values.get("url"))
        secret = self._secret(name, values.get("secret"))
        if kind is not None and len(self.problems) == found:
            self._needs_secret(name, kind, str(values["url"]), secret)
        channel = self._model(name, {**values, "secret": secret})
        return channel if len(self.problems) == found else None

    def _kind(self, name: str, url: object) -> Kind | None:
        kind = kind_of(url) if isinstance(url, str) else None
        if kind is None:
            self._wrong(name, "url", note("no address; write one such as wecombot://{key}", key=PLACE))
        return kind

    def _secret(self, name: str, given: object) -> str | None:
        if given is None:
            return None
        if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in ("env", "file"):
            self._wrong(
                name, "secret", note("the secret may not stand in this file; name where it is: env: NAME or file: PATH")
            )
            return None
        [(where, place)] = given.items()
        if where == "env":
            secret = self._environment.get(str(place), "").strip()
            if not secret:
                remedy = note("the environment variable {place} is not set; set it and start again", place=str(place))
                self._wrong(name, "secret", remedy)
            return secret
        return self._from_file(name, str(place))

    def _from_file(self, name: str, place: str) -> str | None:
        try:
            with (self._folder / place).open("rb") as file:
                secret = file.read(MOST_SECRET_BYTES + 1).decode("utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            self._wrong(
                name,
                "secret",
                note(
                    "the file {place} cannot be read ({reason}); check its path and permissions",
                    place=place,
                    reason=reason,
                ),
            )
            return None
        if not secret or len(secret) > MOST_SECRET_BYTES:
            self._wrong(
                name,
                "secret",
                note("the file {place} is empty or too large; write the secret there, and nothing else", place=place),
            )
        return secret

    def _needs_secret(self, name: str, kind: Kind, url: str, secret: str | None) -> None:
        if kind is WEBHOOK:
            if secret is None:
                self._wrong(name, "secret", note("a webhook needs a secret, with which its messages are signed"))
            return
        if PLACE in url:
            if secret is None:
                self._wrong(name, "secret", note("the address has a place for a secret, and none is named"))
            return
        if kind is not MAIL or (urlsplit(url).password is not None and unquote(urlsplit(url).password or "")):
            remedy = note("the address has its secret in it; write {place} instead, and name the secret", place=PLACE)
            self._wrong(name, "url", remedy)
        elif secret is not None:
            self._wrong(name, "url", note("the address has no place for the secret; write {place} there", place=PLACE))

    def _model(self, name: str, values: Mapping[str, Any]) -> Channel | None:
        try:
            return Channel.model_validate(values)
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False):
                field = str(problem["loc"][0]) if problem["loc"] else ""
                if problem["type"] == "extra_forbidden":
                    self._wrong(name, field, own_field(field, _FIELDS))
                elif field not in ("url", "secret"):  # those have a sentence of their own
                    self._wrong(name, field, problem["msg"].removeprefix("Value error, "))
            if not self.problems:
                self._wrong(name, "url", note("no address; write one such as wecombot://{key}", key=PLACE))
            return None

    def _wrong(self, name: str, field: str, problem: Note | str) -> None:
        line = self._lines.get((name, field)) or self._lines.get((name,))
        where = note("channel {name}, {field}: {problem}", name=name, field=field, problem=problem)
        if not field:
            where = note("channel {name}: {problem}", name=name, problem=problem)
        self.problems.append(Problem(name, where, line, self._file))
