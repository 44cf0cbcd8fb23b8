"""Access rights: what a caller may ask and see (docs/access.md). A role's rights are data (`roles.toml`); for one
person, a scope is added.

Invariant: rights only ever take something away. `Access.FULL` takes away nothing, and costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from coupon_ledger.ledger.errors import Forbidden

if TYPE_CHECKING:
    from pydantic import BaseModel

KEY_BYTES: Final = 32
_UNREADABLE: Final = "access rights: cannot be read; send them as the service of this version of coupon-ledger does"

Names = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects are visible. None: all. If several kinds are given, an object must satisfy each of them."""

    campaigns: Names = None
    channels: Names = None
    stores: Names = None

    def __bool__(self) -> bool:
        """Whether anything is out of scope."""
        return any(names is not None for names in (self.campaigns, self.channels, self.stores))


@dataclass(frozen=True, slots=True)
class Access:
    """What may be asked and seen.

    `areas`: the areas of questions that may be asked (`Question.area`); None: all. `scope`: the visible rows.
    `personal`: whether personal data are shown. If not, pseudonyms made with `key` replace user ids. `key`: a secret of
    the installation, 32 bytes; the same key gives the same pseudonyms.
    """

    areas: frozenset[str] | None = None
    scope: Scope = Scope()
    personal: bool = True
    key: bytes = field(default=b"", repr=False)

    FULL: ClassVar[Access]

    def __post_init__(self) -> None:
        if not self.personal and len(self.key) != KEY_BYTES:
            raise Forbidden(f"access rights: without personal data, a key of {KEY_BYTES} bytes is needed; give one")

    @property
    def sees_all(self) -> bool:
        """Whether every row and column is visible."""
        return self.personal and not self.scope

    def within(self, scope: Scope) -> Access:
        """The same rights with this scope."""
        return replace(self, scope=scope)

    def dumps(self) -> str:
        """The rights as JSON, in ASCII, for a header."""
        areas = None if self.areas is None else sorted(self.areas)
        scope = {"campaigns": self.scope.campaigns, "channels": self.scope.channels, "stores": self.scope.stores}
        return json.dumps(
            {"areas": areas, "scope": scope, "personal": self.personal, "key": self.key.hex()}, separators=(",", ":")
        )

    @classmethod
    def loads(cls, text: str) -> Access:
        """Read what `dumps` wrote. Every entry must be there. Raises `Forbidden`."""
        from pydantic import ValidationError

        try:
            sent: Any = _validator().model_validate_json(text)
            areas = None if sent.areas is None else frozenset(sent.areas)
            scope = Scope(sent.scope.campaigns, sent.scope.channels, sent.scope.stores)
            return cls(areas, scope, sent.personal, bytes.fromhex(sent.key))
        except (ValidationError, ValueError):
            raise Forbidden(_UNREADABLE) from None


Access.FULL = Access()


def _validator() -> type[BaseModel]:
    from pydantic import BaseModel, ConfigDict

    class SentScope(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        campaigns: tuple[str, ...] | None
        channels: tuple[str, ...] | None
        stores: tuple[str, ...] | None

    class Sent(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        areas: tuple[str, ...] | None
        scope: SentScope
        personal: bool
        key: str

    Sent.model_rebuild(_types_namespace={"SentScope": SentScope})
    return Sent
