"""Our own webhook: a JSON body, signed as https://www.standardwebhooks.com says, so that receivers find a library that
verifies it in most languages.

Headers: `webhook-id` (the idempotency key, the same at every attempt), `webhook-timestamp` (seconds since 1970 of this
attempt) and `webhook-signature` (`v1,` and the base64 form of HMAC-SHA256 over id, timestamp and body, joined by dots).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any, Final

from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome, Response, by_status

PREFIX: Final = "whsec_"
"""A secret that begins with this is base64; any other secret is taken as UTF-8."""


def key_of(secret: str) -> bytes:
    """The bytes of a secret."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signature(secret: str, key: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`."""
    signed = f"{key}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is a failure: what is signed for one address must not go to another."""

    def redirect_request(self, *_: Any) -> None:
        return None


def send(job: Job) -> Outcome:
    body = json.dumps(job.text.data, ensure_ascii=False, separators=(",", ":")).encode()
    timestamp = int(time.time())
    request = urllib.request.Request(
        job.address,
        data=body,
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "coupon-ledger",
            "Idempotency-Key": job.key,
            "webhook-id": job.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(job.secret, job.key, timestamp, body),
        },
    )
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=job.timeout_s) as answer:
            response = Response(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            response = Response(error.code, headers={name.lower(): value for name, value in error.headers.items()})
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Outcome("failed", f"{type(error).__name__}: {reason}")
    return by_status(response)
