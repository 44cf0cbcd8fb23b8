"""The roles of `roles.toml`: the rights of each, to which a person's scope is added."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from coupon_ledger.ledger.labels import Label
from coupon_ledger.questions.access.access import Access, Scope


@dataclass(frozen=True, slots=True)
class Role:
    """`label`: what the role does. `areas`: the areas of questions that it may ask. `personal`: whether it sees
    personal data."""

    label: Label
    areas: frozenset[str]
    personal: bool

    def access(self, key: bytes, scope: Scope = Scope()) -> Access:  # noqa: B008
        """The rights of a person with this role. `key`: the installation's key for pseudonyms."""
        return Access(self.areas, scope, self.personal, key)


@cache
def roles() -> Mapping[str, Role]:
    """All roles by name."""
    table = tomllib.loads(files(__package__).joinpath("roles.toml").read_text(encoding="utf-8"))
    return {name: _role(**entry) for name, entry in table.items()}


def _role(en: str, zh: str, areas: list[str], personal: bool) -> Role:
    return Role(Label(en, zh), frozenset(areas), personal)
