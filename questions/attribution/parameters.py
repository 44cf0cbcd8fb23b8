"""Parameters of the questions about attribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from coupon_ledger.questions.parameters import (
    GoodsRates,
    Hint,
    Instant,
    Names,
    OfPast,
)

Models = Annotated[
    Annotated[tuple[str | Mapping[str, Any], ...], *Names.__metadata__] | None,
    Hint("no names, and no JSON list of models; see `attribution models`"),
    "Names of built-in models, or definitions of others (name, kind, parameters). [default: all built-in ones]",
]


@dataclass(frozen=True, kw_only=True)
class Paid(OfPast):
    since: Annotated[Instant | None, "Only orders paid from then on."] = None
    until: Annotated[Instant | None, "Only orders paid before then."] = None
    goods_rates: GoodsRates = None


@dataclass(frozen=True, kw_only=True)
class Credits(Paid):
    models: Models = None
    by: Annotated[str, "Whom to credit: channel, campaign or kind."] = "channel"
    campaign: Annotated[str | None, "Only this campaign apart: all other ones count as one."] = None


@dataclass(frozen=True, kw_only=True)
class CreditsOfOrder(OfPast):
    order: Annotated[str, "The order's id."]
    models: Models = None


@dataclass(frozen=True, kw_only=True)
class Roi(Paid):
    campaign: Annotated[str, "The campaign's id."]
    models: Models = None
