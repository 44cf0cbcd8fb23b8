"""Attribution models: each has a name, a kind and parameters. For each kind, there is a built-in model with the usual
parameters. Other models are defined by users and stored as operations in the log, so they are never lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.ledger.events import Id, problems_of
from coupon_ledger.projections.attribution.paths import LOOK_BACK

Kind = Literal["redeemed", "last", "first", "linear", "time_decay", "position", "markov", "shapley"]
KINDS: Final[dict[str, str]] = {
    "redeemed": "to the coupons used on the order, by their discounts",
    "last": "to the last touch before the order",
    "first": "to the first touch in the look-back window",
    "linear": "the same credit to each touch",
    "time_decay": "half as much credit for each half-life of the touch's age",
    "position": "fixed shares to the first and the last touch, the rest to those between",
    "markov": "by the share of all orders that would be lost without the channel",
    "shapley": "by what the channel adds to all combinations of the others",
}
"""How each kind credits an order."""
WHEN: Final[dict[str, str]] = {
    "redeemed": "which campaign's coupons were redeemed, as finance counts them: it reconciles with the discounts",
    "last": "which channel closes the sale; it overrates channels just before the purchase",
    "first": "which channel finds new customers; it overrates channels with a wide reach",
    "linear": "no opinion: every touch counts the same; a baseline for the other models",
    "time_decay": "short decisions and sales of a few days, where the latest touches count most",
    "position": "both the channel that opened and the one that closed the way to an order",
    "markov": "which channel would be missed most; needs many paths, and rates channels, not orders",
    "shapley": "a fair share of channels that work together; needs many paths, and rates channels, not orders",
}
"""The question that each kind answers. None of them shows causation."""
OVER_ALL: Final = ("markov", "shapley")
"""Kinds that compute credits over all paths, not for single orders."""
DEFINED: Final = "attribution_model_defined"
"""The operation that stores a model."""

_DAYS: Final = LOOK_BACK.days
_PARAMETERS: Final = {
    "half_life_days": "time_decay",
    "first_share": "position",
    "last_share": "position",
    "worth": "shapley",
    "draws": "shapley",
}
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Model(BaseModel):
    """An attribution model.

    `look_back_days`: a touch counts if it is at most this many days before the payment. `worth` (shapley): how much a
    combination of channels is worth. Consider the people who met no channels other than those of the combination: the
    worth is the number of their orders (`orders`), or the share of buyers among them (`rate`). `draws`: how many
    permutations to sample if there are too many combinations to evaluate all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Id
    kind: Kind
    look_back_days: Annotated[float, Field(gt=0, le=_DAYS, allow_inf_nan=False)] = 30
    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 7
    first_share: Share = 0.4
    last_share: Share = 0.4
    worth: Literal["orders", "rate"] = "orders"
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 5_000

    @model_validator(mode="after")
    def _shares(self) -> Model:
        if self.first_share + self.last_share > 1 + 1e-9:
            raise ValueError("first_share and last_share must sum to 1 at most")
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """By name, the values of those parameters that models of this kind use."""
        read = [name for name, kind in _PARAMETERS.items() if kind == self.kind]
        looking = [] if self.kind == "redeemed" else ["look_back_days"]
        return {name: getattr(self, name) for name in [*looking, *read]}


BUILT_IN: Final = {kind: Model(name=kind, kind=kind) for kind in KINDS}


def made(definition: dict[str, Any]) -> Model:
    """Build a model from its definition, which maps field names of `Model` to values. Raises `WrongQuestion`."""
    name = str(definition.get("name"))[:40]
    if unread := [n for n, kind in _PARAMETERS.items() if n in definition and kind != definition.get("kind")]:
        raise WrongQuestion(
            f"model {name}: {unread[0]} is a parameter of {_PARAMETERS[unread[0]]}, not of {definition.get('kind')};"
            " leave it out"
        )
    try:
        return Model.model_validate(definition)
    except ValidationError as error:
        problem = problems_of(error)[0]
        field = f"{problem.field} " if problem.field else ""
        raise WrongQuestion(f"model {name}: {field}{problem.rule}; see `coupon-ledger attribution models`") from error


def models_named(models: Sequence[str | Mapping[str, Any]] | None) -> list[Model]:
    """The models for a question. `models`: names of built-in models, or definitions of models. None or `all` means all
    built-in models. Raises `NotThere`, `WrongQuestion`."""
    if models is None or list(models) == ["all"]:
        return list(BUILT_IN.values())
    if not models:
        raise WrongQuestion("models: none is named; name one, or leave it out for all")
    return _distinct(_built_in(one) if isinstance(one, str) else made(dict(one)) for one in models)


def _built_in(name: str) -> Model:
    if name not in BUILT_IN:
        raise NotThere(f"model {name}: there is none of that name; there are {', '.join(BUILT_IN)}")
    return BUILT_IN[name]


def _distinct(models: Iterable[Model]) -> list[Model]:
    return list({model.name: model for model in models}.values())
