"""Mail over SMTP, as text and HTML. Apprise reads the address, and so knows the servers of many providers; the mail is
written and sent here.

The `Message-ID` is made from the idempotency key: a mail that is sent twice is shown once by most programs. Messages
about one alert refer to each other, so that they are shown as one conversation.
"""

from __future__ import annotations

import hashlib
import smtplib
import socket
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Final

from coupon_ledger.delivery.apprise_sender import instantiate
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import SENT, Outcome

_TOO_LARGE: Final = frozenset({552, 554})
"""Replies to the contents of a mail that mean that these contents will never be accepted."""


def send(job: Job) -> Outcome:
    service = instantiate(job)
    if service is None:
        return Outcome("failed", "not an address of a mail server and of recipients; see docs/alert-channels.md")
    everybody = [address for _, address in service.targets] + sorted({*service.cc, *service.bcc})
    recipients = [address for address in everybody if address not in job.delivered]
    try:
        with _connected(service, job.timeout_s) as server:
            refused = server.send_message(_mail(job, service), service.from_addr[1], recipients)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except smtplib.SMTPDataError as error:
        return Outcome("refused" if error.smtp_code in _TOO_LARGE else "failed", _reply(error.smtp_code, error))
    except smtplib.SMTPResponseException as error:
        return Outcome("failed", _reply(error.smtp_code, error))
    except (OSError, smtplib.SMTPException) as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return _with_refused(refused, recipients, job)


def _with_refused(refused: dict[str, tuple[int, bytes]], recipients: list[str], job: Job) -> Outcome:
    """The outcome if the server refused some recipients. Those that it refuses for now are tried again, without the
    others. Those that it refuses for ever are only named, unless nobody got the mail."""
    if not refused:
        return SENT
    delivered = (*job.delivered, *(address for address in recipients if address not in refused))
    reason = "; ".join(
        f"{address}: {code} {text.decode(errors='replace')}" for address, (code, text) in refused.items()
    )
    later = any(code < 500 for code, _ in refused.values())
    return Outcome("failed" if later or not delivered else "sent", reason, None, delivered)


def _reply(code: int, error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
    return f"SMTP reply {code} {text}"


def _connected(service: Any, timeout_s: float) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if not service.verify_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = socket.gethostname()  # smtplib would ask the name service, which may take longer than the channel has
    server: smtplib.SMTP
    if service.secure_mode == "ssl":
        server = smtplib.SMTP_SSL(service.smtp_host, service.port, name, timeout=timeout_s, context=context)
    else:
        server = smtplib.SMTP(service.smtp_host, service.port, name, timeout=timeout_s)
    try:
        if service.secure_mode == "starttls":
            server.starttls(context=context)
        if service.user and service.password:
            server.login(service.user, service.password)
    except BaseException:
        server.close()
        raise
    return server


def _mail(job: Job, service: Any) -> EmailMessage:
    name, address = service.from_addr
    domain = address.rpartition("@")[2] or "localhost"
    mail = EmailMessage()
    mail["Subject"] = job.text.title
    mail["From"] = _address(name or "coupon-ledger", address)
    mail["To"] = [_address(name or "", address) for name, address in service.targets]
    if service.cc:
        mail["Cc"] = [_address("", address) for address in sorted(service.cc)]
    if service.reply_to:
        mail["Reply-To"] = [_address("", address) for address in sorted(service.reply_to)]
    mail["Date"] = formatdate(localtime=False)
    mail["Message-ID"] = _id(job.key, domain)
    mail["References"] = _id(job.text.thread, domain)
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Idempotency-Key"] = job.key
    mail.set_content(job.text.text, cte="base64")
    mail.add_alternative(job.text.html, subtype="html", cte="base64")
    return mail


def _address(name: str, address: str) -> Address:
    return Address(display_name=name, addr_spec=address)


def _id(text: str, domain: str) -> str:
    return f"<{hashlib.sha256(text.encode()).hexdigest()[:32]}@{domain}>"
