"""Parameters of the question about operations."""

from __future__ import annotations

from typing import Annotated

from coupon_ledger.questions.parameters import Instant, Limit, Parameters


class Operations(Parameters):
    """Which operations a question is about. A field that is None does not restrict them."""

    operator: Annotated[str | None, "Only what this operator did: a person's name, or `token:` and a token's."] = None
    action: Annotated[str | None, "Only this action, for example asked."] = None
    subject: Annotated[str | None, "Only what was done to this, for example a question's name."] = None
    since: Annotated[Instant | None, "Only what happened at or after this instant."] = None
    until: Annotated[Instant | None, "Only what happened before this instant."] = None
    limit: Limit = None
