"""What the routes share to describe themselves in OpenAPI."""

from __future__ import annotations

import http
from typing import Any, Final

from coupon_ledger.api.service.problems import MEDIA_TYPE

EXAMPLE_EVENT: Final[dict[str, Any]] = {
    "topic": "coupon.events",
    "type": "issued",
    "event_id": "e-1",
    "source": "shop",
    "occurred_at": "2026-11-11T00:00:00Z",
    "coupon_id": "c-1",
    "campaign_id": "flash-sale",
    "channel": "app",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route."""
    content = {MEDIA_TYPE: {"schema": reference("Problem")}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def reference(name: str) -> dict[str, str]:
    """Stands for a schema that many routes share, so that the description stays small."""
    return {"$ref": f"#/components/schemas/{name}"}
