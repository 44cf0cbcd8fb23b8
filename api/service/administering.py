"""Routes for people and tokens. The rules are those of `accounts`, as for the commands `people` and `tokens`.

A password or token that the service makes is in the answer once, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter
from pydantic import Field, SecretStr
from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.api.service import accounts
from coupon_ledger.api.service.auditing import Audit
from coupon_ledger.api.service.callers import allowed
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.api.service.requests import Body, Name, answer, described, taken
from coupon_ledger.api.service.settings_store import SettingsStore

_T = TypeVar("_T")
_Days = Annotated[float, Field(gt=0, le=3_650, description="In days.")]


class Scope(Body):
    """Which rows are seen. A kind that is missing does not narrow."""

    campaign: list[Name] = Field(default_factory=list)
    channel: list[Name] = Field(default_factory=list)
    store: list[Name] = Field(default_factory=list)

    def rows(self) -> dict[str, list[str]]:
        return {kind: names for kind, names in self.model_dump().items() if names}


class NewPerson(Body):
    name: Name
    role: Name
    display_name: str = ""
    scope: Scope = Scope()
    password: Annotated[SecretStr | None, Field(description="[default: one is made, and is in the answer]")] = None
    openid_only: Annotated[bool, Field(description="The person has no password.")] = False


class ChangedPerson(Body):
    role: Name | None = None
    display_name: Name | None = None
    scope: Scope | None = None
    password: SecretStr | None = None
    disabled: bool | None = None


class NewToken(Body):
    name: Name
    role: Name
    sources: Annotated[list[Name], Field(description="Values of `source` that it may publish.")] = Field(
        default_factory=list
    )
    scope: Scope = Scope()
    valid_days: _Days | None = None


class Rotation(Body):
    valid_days: _Days | None = None
    overlap_hours: Annotated[float | None, Field(ge=0, le=720, description="How long the former one works.")] = None


def routes(store: SettingsStore, audit: Audit) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["people and tokens"])

    async def run(work: Callable[[SettingsStore], _T]) -> _T:
        """Do it in a thread, with a connection of its own: hashing a password takes a while."""

        def working() -> _T:
            with SettingsStore(store.file) as own:
                return work(own)

        return await asyncio.to_thread(working)

    @router.get("/people", **described(None, None, {"people": [_PERSON]}, refusals=(401, 403)))
    async def people(request: Request) -> Response:
        """List the people: role, scope, and whether they can sign in."""
        allowed(request, "administer")
        return answer({"people": [accounts.person_row(person) for person in store.people()]})

    @router.post("/people", **described(NewPerson, _NEW_PERSON, {**_PERSON, "password": "…"}, status=201))
    async def add_person(request: Request) -> Response:
        """Add a person. Without a password, one is made; it is in the answer once."""
        caller, body = await taken(request, "administer", NewPerson)
        if body.openid_only and body.password is not None:
            raise Refusal(422, "password: contradicts openid_only; leave one out")
        made = None if body.openid_only or body.password is not None else accounts.made_password()
        password = made if body.password is None else body.password.get_secret_value()
        person = await run(
            lambda own: accounts.add_person(
                own,
                body.name,
                role=body.role,
                password=password,
                display_name=body.display_name,
                scope=body.scope.rows(),
            )
        )
        audit.note("person_added", caller.name, person.name, {"role": person.role})
        row = accounts.person_row(person)
        return answer(row if made is None else {**row, "password": made}, 201)

    @router.patch("/people/{name}", **described(ChangedPerson, {"role": "risk"}, _PERSON))
    async def change_person(name: str, request: Request) -> Response:
        """Change a person. A change of what the person may do ends all of that person's sessions."""
        caller, body = await taken(request, "administer", ChangedPerson)
        changes: dict[str, Any] = body.model_dump(exclude_none=True)
        if body.scope is not None:
            changes["scope"] = body.scope.rows()
        if body.password is not None:
            changes["password"] = body.password.get_secret_value()
        person = await run(lambda own: accounts.change_person(own, name, changes))
        audit.note("person_changed", caller.name, name, {"changed": sorted(changes), "role": person.role})
        return answer(accounts.person_row(person))

    @router.delete("/people/{name}", **described(Body, {}, {"removed": "li"}))
    async def remove_person(name: str, request: Request) -> Response:
        """Remove a person, with the saved views. What the person did stays recorded."""
        caller, _ = await taken(request, "administer", Body)
        await run(lambda own: accounts.remove_person(own, name))
        audit.note("person_removed", caller.name, name)
        return answer({"removed": name})

    @router.get("/tokens", **described(None, None, {"tokens": [_TOKEN]}, refusals=(401, 403)))
    async def tokens(request: Request) -> Response:
        """List the tokens, without their secrets."""
        allowed(request, "administer")
        return answer({"tokens": [accounts.token_row(token) for token in store.tokens()]})

    @router.post("/tokens", **described(NewToken, _NEW_TOKEN, {**_TOKEN, "token": "cl_…"}, status=201))
    async def add_token(request: Request) -> Response:
        """Make a token for a system. It is in the answer once."""
        caller, body = await taken(request, "administer", NewToken)
        valid = None if body.valid_days is None else timedelta(days=body.valid_days)
        text, row = await run(
            lambda own: (
                accounts.add_token(
                    own, body.name, role=body.role, sources=body.sources, valid=valid, scope=body.scope.rows()
                ),
                accounts.token_row(own.token(body.name)),
            )
        )
        audit.note("token_created", caller.name, body.name, {"role": body.role})
        return answer({**row, "token": text}, 201)

    @router.post("/tokens/{name}/rotate", **described(Rotation, {"overlap_hours": 1}, {**_TOKEN, "token": "cl_…"}))
    async def rotate_token(name: str, request: Request) -> Response:
        """Replace a token by a new one with the same rights. The former one works a while longer."""
        caller, body = await taken(request, "administer", Rotation)
        valid = None if body.valid_days is None else timedelta(days=body.valid_days)
        overlap = None if body.overlap_hours is None else timedelta(hours=body.overlap_hours)
        text, row = await run(
            lambda own: (accounts.rotate_token(own, name, valid, overlap), accounts.token_row(own.token(name)))
        )
        audit.note("token_rotated", caller.name, name)
        return answer({**row, "token": text})

    @router.delete("/tokens/{name}", **described(Body, {}, {"revoked": "shop"}))
    async def revoke_token(name: str, request: Request) -> Response:
        """Make a token invalid at once, for good."""
        caller, _ = await taken(request, "administer", Body)
        await run(lambda own: own.revoke_token(name))
        audit.note("token_revoked", caller.name, name)
        return answer({"revoked": name})

    return router


_NEW_PERSON: Final = {"name": "li", "role": "marketing"}
_NEW_TOKEN: Final = {"name": "shop", "role": "publisher", "sources": ["shop"]}
_PERSON: Final = {"name": "li", "display_name": "li", "role": "marketing", "scope": None, "state": "active"}
_TOKEN: Final = {"name": "shop", "role": "publisher", "sources": ["shop"], "state": "active"}
