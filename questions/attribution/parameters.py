"""Parameters of the questions about attribution."""

from __future__ import annotations

from collections.abc import Mapping
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
    "Names of built-in models, or definitions of other models (name, kind, parameters). [default: all built-in models]",
]


class Paid(OfPast):
    since: Annotated[Instant | None, "Only orders paid at or after this instant."] = None
    until: Annotated[Instant | None, "Only orders paid before this instant."] = None
    goods_rates: GoodsRates = None


class Credits(Paid):
    models: Models = None
    by: Annotated[str, "What to credit: channel, campaign or kind (of touch)."] = "channel"
    campaign: Annotated[str | None, "Show this campaign separately. All other campaigns count as one."] = None


class CreditsOfOrder(OfPast):
    order: Annotated[str, "The order's id."]
    models: Models = None


class Roi(Paid):
    campaign: Annotated[str, "The campaign's id."]
    models: Models = None
