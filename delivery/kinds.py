"""The kinds of destinations, and which address is of which kind.

Only tables: the modules that send are loaded by the process that sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Kind:
    """`module`: of this room, whose `send` takes a job. `per_minute`: how many messages it takes, if the channel does
    not say. `most_bytes`: the length of the text that it takes, in UTF-8."""

    name: str
    module: str
    per_minute: int
    most_bytes: int


WECOM: Final = Kind("wecom", "wecom", 20, 2_000)
DINGTALK: Final = Kind("dingtalk", "dingtalk", 20, 18_000)
FEISHU: Final = Kind("feishu", "feishu", 100, 15_000)
SLACK: Final = Kind("slack", "slack", 50, 10_000)
MAIL: Final = Kind("mail", "mail", 30, 60_000)
WEBHOOK: Final = Kind("webhook", "webhook", 600, 60_000)
GATEWAY: Final = Kind("gateway", "gateway", 10, 4_000)

KINDS: Final = {kind.name: kind for kind in (WECOM, DINGTALK, FEISHU, SLACK, MAIL, WEBHOOK, GATEWAY)}
_SCHEMES: Final = {
    "wecombot": WECOM,
    "dingtalk": DINGTALK,
    "feishu": FEISHU,
    "lark": FEISHU,
    "slack": SLACK,
    "mailto": MAIL,
    "mailtos": MAIL,
    "http": WEBHOOK,
    "https": WEBHOOK,
}
_HOSTS: Final = {
    "qyapi.weixin.qq.com": WECOM,
    "hooks.slack.com": SLACK,
    "oapi.dingtalk.com": DINGTALK,
    "open.feishu.cn": FEISHU,
    "open.larksuite.com": FEISHU,
}
"""Services whose own addresses (`https://…`) are copied as they are."""
_COPIED: Final = {
    "https://oapi.dingtalk.com/robot/send?access_token=": "dingtalk://",
    "https://open.feishu.cn/open-apis/bot/v2/hook/": "feishu://",
}
"""Addresses that apprise does not know in the form in which the service shows them."""


def apprises(address: str) -> str:
    """The address in a form that apprise knows."""
    for shown, known in _COPIED.items():
        if address.startswith(shown):
            return known + address.removeprefix(shown)
    return address


def kind_of(url: str) -> Kind | None:
    """The kind of destination of an address; None if it is no address. A scheme that is not in the table is left to
    apprise."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    if not parts.scheme or "://" not in url:
        return None
    if parts.scheme in ("http", "https"):
        return _HOSTS.get(host, WEBHOOK)
    return _SCHEMES.get(parts.scheme, GATEWAY)
