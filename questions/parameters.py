"""Parameter models: each describes the parameters of a question, with types and texts, for the command line, the
endpoint and the docs.

A model is a frozen class. Each field is annotated with its description, with its `Bounds`, and with a `Hint` if the
validator's message would not help. The models of a package are in its `parameters.py`. `read` makes an instance of a
model from untyped values. This module imports nothing heavy, so `--help` is fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import get_annotations
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from coupon_ledger.ledger.errors import WrongQuestion

if TYPE_CHECKING:
    from pydantic import BaseModel, GetCoreSchemaHandler
    from pydantic_core import CoreSchema, ErrorDetails

_INT64: Final = 2**63 - 1
CENTURY_DAYS: Final = 36_525
MOST_ROWS: Final = 1_000_000_000
_SHOWN: Final = 40
_OUT_OF_BOUNDS: Final = {"greater_than_equal", "less_than_equal", "greater_than", "finite_number", "int_parsing_size"}


@dataclass(frozen=True, slots=True)
class Hint:
    """The text of the error if the field's value is invalid, without the field's name. It replaces the validator's
    message."""

    text: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the greatest number allowed. Pydantic's own annotations are not used, since importing them would
    slow down `--help`."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"from {self.least:,} to {self.most:,}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = {**handler(source), "ge": self.least, "le": self.most}
        bounded: CoreSchema = schema
        return bounded


class _NaiveUtc:
    """Annotation of a field whose value, an instant, is converted to naive UTC, the form used in the tables."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_naive, handler(source))


class _CommaSeparated:
    """Annotation of a field whose value is a sequence and can be given as comma-separated text."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_split, handler(source))


def _split(value: object) -> object:
    return (value.split(",") if value else ()) if isinstance(value, str) else value


def _naive(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC; give an instant within them") from None


def naive_utc(name: str, value: datetime) -> datetime:
    """The instant `value` as naive UTC. Raises `WrongQuestion` if it is outside the years 1 to 9999 in UTC. `name`: the
    parameter's name, used in the error."""
    try:
        return _naive(value)
    except ValueError as error:
        raise WrongQuestion(f"{name} {value.isoformat()}: {error}") from None


Instant = Annotated[datetime, _NaiveUtc()]
Integer = Annotated[int, Bounds(-_INT64 - 1, _INT64)]
Number = Annotated[float, Bounds(-1e15, 1e15)]
Offset = Annotated[int, Bounds(0, _INT64)]
Partition = Annotated[int, Bounds(0, 2**31 - 1)]
Days = Annotated[int, Bounds(1, CENTURY_DAYS)]
Names = Annotated[tuple[str, ...], _CommaSeparated()]
"""Several names, or one comma-separated text."""
Limit = Annotated[Annotated[int, Bounds(0, MOST_ROWS)] | None, "At most this many rows. [default: all]"]
GoodsRates = Annotated[
    Mapping[str, Annotated[int, Bounds(0, 10_000)]] | None,
    Hint('are no JSON object of basis points, 0 to 10000; write {"food": 7000, "": 6000}'),
    "Cost of goods for orders that do not state it, in basis points of the amount paid, by category. The empty category"
    " is the default for all others.",
]
Zone = Annotated[str, "Time zone for days, weeks and months, such as Asia/Shanghai."]
Since = Annotated[Instant | None, "Start of the period (included)."]
Until = Annotated[Instant | None, "End of the period (excluded)."]
Campaign = Annotated[str | None, "Only this campaign."]
Explain = Annotated[bool, "Instead of the numbers, list the events, coupons or orders behind them."]
DEFAULT_ZONE: Final = "Asia/Shanghai"


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False)
class Parameters:
    """The parameters of a question. Each parameter model is a subclass. The class itself is the model of questions
    without parameters.

    Subclasses declare their fields with annotations, like dataclasses, and are frozen. They are not dataclasses,
    because generating the methods of so many dataclasses would slow down the start of every command.
    """

    field_names: ClassVar[tuple[str, ...]] = ()
    """Names of the fields; those of base classes come first."""
    _hints: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls) -> None:
        cls.field_names = tuple(dict.fromkeys((*cls.field_names, *get_annotations(cls))))

    def __init__(self, **values: Any) -> None:
        if strange := values.keys() - self.field_names:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(strange))}")
        if missing := [name for name in self.field_names if name not in values and not hasattr(type(self), name)]:
            raise TypeError(f"{type(self).__name__} needs {', '.join(missing)}")
        vars(self).update(values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    @classmethod
    def field_types(cls) -> Mapping[str, Any]:
        """The annotated type of each field by name. Its metadata include the description and the bounds."""
        if "_hints" not in vars(cls):
            hints = get_type_hints(cls, include_extras=True)
            cls._hints = {name: hints[name] for name in cls.field_names}
        return cls._hints

    @property
    def bound(self) -> dict[str, Any]:
        """The values by field name, except the cut. They are the parameters of an SQL query that uses the same
        names."""
        return {name: getattr(self, name) for name in self.field_names if name not in CUT}

    @property
    def looks_back(self) -> bool:
        """Whether a cut is set, which makes it a question about the past."""
        return any(getattr(self, name, None) is not None for name in CUT)


class OfPast(Parameters):
    """Base of the models of questions that can be asked about the past. Its fields describe the cut: the point up to
    which events count."""

    at: Annotated[Instant | None, "State at this instant: only events that happened up to then."] = None
    known_at: Annotated[
        Instant | None, "State as known at this instant: only events that the log had recorded up to then."
    ] = None
    positions: Annotated[
        str | None, "State at these log positions: only records before them. Comma-separated TOPIC:PARTITION:OFFSET."
    ] = None


CUT: Final = OfPast.field_names
P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a model. `nested`: whether the value is a mapping, or a list whose elements are not just text. In a
    URL, such a value is written as JSON. `several`: whether the value is a list. `hint`: the text of the field's
    `Hint`."""

    name: str
    description: str
    default: Any
    required: bool
    bounds: Bounds | None
    nested: bool
    several: bool
    hint: str | None

    def takes_json(self, text: str) -> bool:
        """Whether `text`, a value in a URL, is to be read as JSON."""
        return (self.nested or self.several) and text.lstrip()[:1] in ("[", "{")


def parameters_of(model: type[Parameters]) -> dict[str, Parameter]:
    """The fields of a model by name, in the order of their declaration."""
    return {name: _parameter(model, name, kind) for name, kind in model.field_types().items()}


def _parameter(model: type[Parameters], name: str, kind: Any) -> Parameter:
    metadata = _metadata(kind)
    return Parameter(
        name,
        next((one for one in metadata if isinstance(one, str)), ""),
        getattr(model, name, None),
        not hasattr(model, name),
        next((one for one in metadata if isinstance(one, Bounds)), None),
        _nested(kind),
        _has_origin(kind, tuple),
        next((one.text for one in metadata if isinstance(one, Hint)), None),
    )


def about(model: type[Parameters], name: str) -> str:
    """The description of the field `name` of a model."""
    return next(one for one in _metadata(model.field_types()[name]) if isinstance(one, str))


def _metadata(kind: Any) -> list[Any]:
    """All `Annotated` metadata of a type, outermost first. The metadata of the elements of a mapping or sequence are
    left out."""
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        return [*reversed(metadata), *_metadata(inner)]
    if (isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping | tuple)) or _is_literal(kind):
        return []
    return [one for part in get_args(kind) for one in _metadata(part)]


def _has_origin(kind: Any, origin: type) -> bool:
    parts = () if _is_literal(kind) else get_args(kind)
    return get_origin(kind) is origin or any(_has_origin(part, origin) for part in parts if not isinstance(part, str))


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _nested(kind: Any) -> bool:
    origin = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return True
    if origin is tuple:
        return any(one not in (str, Ellipsis) for one in get_args(kind))
    return not _is_literal(kind) and any(_nested(part) for part in get_args(kind) if not isinstance(part, str))


def validator_of(model: type[Parameters]) -> type[BaseModel]:
    """A pydantic model with the same fields as `model`. It checks values, and reads and writes them as JSON."""
    from pydantic import BaseModel, ConfigDict, create_model

    class Checked(BaseModel):
        model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    fields: dict[str, Any] = {name: (kind, getattr(model, name, ...)) for name, kind in model.field_types().items()}
    return create_model(model.__name__, __base__=Checked, **fields)


def read(
    question: str,
    model: type[P],
    validator: type[BaseModel],
    known: Mapping[str, Parameter],
    values: Mapping[str, Any],
) -> P:
    """Make an instance of `model`. `values`: values by field name; None means that a value is absent. `question`: the
    question's name, used in errors. `validator`, `known`: the results of `validator_of` and `parameters_of` for this
    model. Raises `WrongQuestion`, which names the wrong parameter and its bounds."""
    from pydantic import ValidationError

    if unknown := sorted(_shown(name) for name in values.keys() - known.keys()):
        raise WrongQuestion(f"{question}: no parameter {', '.join(unknown)}")
    if odd := [name for name, value in values.items() if not _is_text(value)]:
        raise WrongQuestion(f"{odd[0]}: holds half a character, which is no text; correct it")
    given = {n: v for n, v in values.items() if v is not None and not (v == "" and known[n].nested)}
    try:
        checked = validator.model_validate(given)
        return model(**{name: getattr(checked, name) for name in known})
    except ValidationError as error:
        wrong = {str(one["loc"][0]): one for one in reversed(error.errors(include_url=False))}
        raise WrongQuestion("; ".join(_in_words(known[name], one) for name, one in wrong.items())) from None


def _in_words(parameter: Parameter, error: ErrorDetails) -> str:
    where = parameter.name + "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in error["loc"][1:])
    if error["type"] == "missing":
        return f"{where}: is missing; give it"
    if parameter.hint is not None:
        return f"{parameter.name}: {parameter.hint}"
    what = f"{where} {_shown(error['input'])}"
    if error["type"] == "value_error":
        return f"{what}: {error['ctx']['error']}"
    if error["type"] in _OUT_OF_BOUNDS and parameter.bounds is not None:
        return f"{what}: is out of bounds; give a number {parameter.bounds}"
    rule = re.sub(r" or an instance of \w+", "", error["msg"][0].lower() + error["msg"][1:])
    return f"{what}: {rule.replace('tuple', 'list').replace('dictionary', 'object')}"


def _shown(value: object) -> str:
    """The value as errors show it: short, and without characters that cannot be encoded."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _is_text(value: object) -> bool:
    """Whether every text in the value can be encoded. JSON can contain half of a surrogate pair, which cannot."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_text(one) for key, one in value.items())
    return not isinstance(value, list | tuple) or all(map(_is_text, value))
