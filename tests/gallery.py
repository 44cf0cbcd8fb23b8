"""The gallery: every component and chart of the pages, with the numbers of a sale day, on a server of its own.

`python -m tests.gallery` serves it on loopback; `?lang=zh`, `?theme=dark` and `?wall` change the view. `python -m
tests.gallery pictures FOLDER` takes screenshots of all of it. The data are made up here; no ledger is opened.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from coupon_ledger.api.pages.components import (
    Action,
    Actions,
    AlertLine,
    AlertList,
    Beside,
    Cards,
    Cell,
    Change,
    ChartPanel,
    Chips,
    Choice,
    Component,
    Entry,
    Facts,
    FilterBar,
    Freshness,
    Head,
    Link,
    Panel,
    Person,
    Sentences,
    Skeleton,
    Slider,
    Sorting,
    State,
    Table,
    Tabs,
    Timeline,
    number_card,
    table_of,
)
from coupon_ledger.api.pages.rendering import FRAGMENT, POLICY, Frame, error_page, render, static
from coupon_ledger.reports.labels import label, word
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Bars, Columns, Funnel, Step, Waterfall
from coupon_ledger.reports.svg.figure import HALF, Figure
from coupon_ledger.reports.svg.grids import Grid, week
from coupon_ledger.reports.svg.intervals import Interval, Intervals
from coupon_ledger.reports.svg.life import Life, Moment
from coupon_ledger.reports.svg.lines import Band, Line, Lines, Note
from coupon_ledger.reports.svg.network import Network, Node
from coupon_ledger.reports.view import View, showing, view

NOW: Final = datetime(2026, 11, 11, 12, 14, tzinfo=UTC)
MIDNIGHT: Final = datetime(2026, 11, 10, 16, tzinfo=UTC)
CLAIMS, USES, MONEY, ROI = (
    Quantity("claimed_coupons"),
    Quantity("net_uses"),
    Quantity("coupon_gmv_minor", "CNY"),
    Quantity("simple_roi"),
)
ZONE: Final = "Asia/Shanghai"


def t(en: str, zh: str) -> str:
    """A text of the sample data, as a campaign's name or an alert's sentence would be."""
    return zh if view().chinese else en


# ── A sale day ───────────────────────────────────────────────────────────────────────────────────────────────────


def day(seed: str, peak: float, minutes: int = 1214) -> list[float]:
    """Events by minute: a rush at midnight, a quiet night, a rise to the evening, noise."""
    dice = random.Random(seed)
    shape = [
        1.9 * math.exp(-m / 28)
        + 0.16
        + 0.42 * math.exp(-(((m - 620) / 150) ** 2))
        + 0.95 * math.exp(-(((m - 1250) / 130) ** 2))
        for m in range(minutes)
    ]
    return [round(peak * one * dice.uniform(0.9, 1.1)) for one in shape]


def minutes(count: int = 1214) -> list[datetime]:
    return [MIDNIGHT + timedelta(minutes=n) for n in range(count)]


def by_minute() -> Lines:
    claims, before = day("claims", 420), day("2025", 370)
    claims[980:1000] = [n * 0.35 for n in claims[980:1000]]
    uses = day("uses", 140)
    smooth = day("claims", 420)
    low = [sum(smooth[max(0, n - 12) : n + 12]) / len(smooth[max(0, n - 12) : n + 12]) * 0.84 for n in range(1214)]
    return Lines(
        title=t("Claims and uses by minute", "每分钟领取与核销"),
        about=t("Both since midnight, with the expected band and last year", "自零点起，含预期区间与去年"),
        quantity=CLAIMS,
        times=minutes(),
        lines=[Line(word("claimed"), claims), Line(word("used"), uses)],
        behind=Line("2025", before),
        band=Band(low, [n * 1.38 for n in low]),
        notes=[
            Note(MIDNIGHT, t("sale opens", "开售"), "sale"),
            Note(MIDNIGHT + timedelta(minutes=600), t("second wave", "第二波"), "sale"),
            Note(MIDNIGHT + timedelta(minutes=982), t("claims fell", "领取骤降"), "alert"),
        ],
    )


CAMPAIGNS: Final = (
    ("c-1111-main", "Double Eleven main venue", "双十一主会场券", 0.62, 12, 1430, 0.331, 182_340_00, 2.41, "high"),
    ("c-1111-app", "App newcomers ¥50 off ¥199", "App新人满199减50", 0.31, 7, 962, 0.402, 96_120_00, 3.12, ""),
    ("c-1111-beauty", "Beauty 15% off", "美妆八五折", 0.88, 184, 288, 0.287, 51_770_00, 1.74, ""),
    ("c-1111-live", "Livestream room, host Anran", "直播间·安然专场", 0.05, 2, 640, 0.512, 41_260_00, 2.06, "critical"),
    ("c-1111-ship", "Free shipping, no threshold", "无门槛包邮", 0.74, 95, 505, 0.618, 22_015_00, 0.42, ""),
    ("c-1111-win", "Win back, 90 days silent", "沉睡90天唤回", 0.93, 610, 41, 0.118, 9_480_00, -0.28, ""),
    (
        "c-1111-shop",
        "Store visit Shanghai Jing'an flagship with a rather long name",
        "到店礼·上海静安旗舰店（名称很长的活动）",
        0.55,
        240,
        36,
        0.224,
        6_210_00,
        1.05,
        "",
    ),
    ("c-1111-vip", "Members' day, gold and above", "会员日·金卡及以上", 0.81, 420, 22, 0.356, 2_940_00, 4.87, ""),
)


def campaigns_table(sort: str) -> Table:
    heads = ("name", "stock_left", "claims_per_minute", "use_rate", "discount_minor", "simple_roi")
    key = sort.lstrip("-") or "discount_minor"
    order = {
        name: n
        for n, name in enumerate(
            (
                "id",
                "en",
                "name",
                "stock_left",
                "minutes",
                "claims_per_minute",
                "use_rate",
                "discount_minor",
                "simple_roi",
            )
        )
    }
    rows = sorted(CAMPAIGNS, key=lambda row: row[order[key]], reverse=not sort or sort.startswith("-"))
    sorting = Sorting(url="/now?sort={sort}", by=sort or "-discount_minor")
    names = {
        "stock_left": t("stock left", "剩余库存"),
        "claims_per_minute": t("claims per minute", "每分钟领取"),
        "discount_minor": t("discount (CNY)", "优惠 (CNY)"),
    }
    lines = []
    for row in rows:
        id_, en, zh, stock, left, claims, rate, discount, roi, alert = row
        few = id_ == "c-1111-vip"
        lines.append(
            (
                Cell(t(en, zh), href=f"/campaigns/{id_}"),
                Cell(
                    f"{left} {t('min', '分钟')}",
                    share=stock,
                    tone="broken" if left < 5 else "attention" if left < 15 else "",
                ),
                Cell(f"{claims:,}"),
                Cell(Quantity("use_rate").exact(rate) + (" (n = 22)" if few else ""), hollow=few),
                Cell(f"{discount / 100:,.2f}"),
                Cell(f"{roi:,.2f}"),
                Cell(word(alert) if alert else "", href="/alerts/a-1" if alert else "", tone="broken" if alert else ""),
            )
        )
    shown = [Head(names.get(name, label(name)), n > 0, *sorting.of(name)) for n, name in enumerate(heads)]
    return Table(
        "campaigns",
        t("Campaigns", "活动"),
        [*shown, Head(t("alerts", "告警"))],
        lines,
        csv="/now.csv",
        more=Link(t("all 41", "全部 41 个"), "/campaigns"),
    )


def cards() -> Cards:

    def hours(seed: str, peak: float) -> list[float]:
        """By half hour; each seed bends the day a little."""
        bent = random.Random(seed)
        return [sum(day(seed, peak)[n : n + 30]) * (1 + bent.uniform(-0.18, 0.18)) for n in range(0, 1200, 30)]

    position = "coupon.events 3@1,184,210 · 0@991,002"
    why = "/explain?metric=claims"
    one: dict[str, Any] = {"position": position, "why_href": why}
    return Cards(
        [
            number_card(
                "claims",
                t("claims", "领取"),
                CLAIMS,
                184_210,
                "/explain",
                history=hours("claims", 420),
                history_behind=hours("2025", 370),
                change=Change(t("12.0% vs 2025", "较2025年 12.0%"), True),
                definition=t("Coupons that somebody claimed, by the time of the claim.", "按领取时间计的领取券数。"),
                **one,
            ),
            number_card(
                "uses",
                t("uses", "核销"),
                USES,
                61_077,
                "/explain",
                history=hours("uses", 140),
                history_behind=hours("u25", 150),
                change=Change(t("3.1% vs 2025", "较2025年 3.1%"), False),
                alert=Link(t("alert", "告警"), "/alerts/a-1"),
                definition=t("Uses that stand: returned ones are taken off.", "净核销：已扣除退回。"),
                **one,
            ),
            number_card(
                "gmv",
                t("GMV with coupons", "用券GMV"),
                MONEY,
                942_318_755,
                "/explain",
                history=hours("g", 300),
                history_behind=hours("g25", 280),
                change=Change(t("8.4% vs 2025", "较2025年 8.4%"), True),
                definition=t(
                    "Gross amount of paid orders with a coupon in use, less refunds.", "用券已付订单的总额，减退款。"
                ),
                **one,
            ),
            number_card(
                "discount",
                t("discount", "优惠成本"),
                Quantity("discount_minor", "CNY"),
                41_222_090,
                "/explain",
                history=hours("d", 90),
                history_behind=hours("d25", 92),
                note=t("4.4% of GMV", "占GMV 4.4%"),
                **one,
            ),
            number_card(
                "roi",
                t("incremental ROI", "增量ROI"),
                ROI,
                None,
                "/explain",
                cases=None,
                why_unknown=t("known on 25 Nov; simple: 2.10", "11月25日可知；简单ROI：2.10"),
                **one,
            ),
        ]
    )


def funnel() -> Funnel:
    steps = [
        Step(word("issued").capitalize(), 400_000, "/f/issued"),
        Step(word("claimed").capitalize(), 184_210, "/f/claimed"),
        Step(word("used").capitalize(), 61_077, "/f/used"),
        Step(t("Kept", "未退回"), 58_140, "/f/kept"),
    ]
    return Funnel(t("Funnel", "漏斗"), t("How far coupons got", "券走到哪一步"), CLAIMS, steps)


def alerts(with_actions: bool = True) -> AlertList:
    actions = [Action(t("Take", "认领"), "/alerts/a-1/take", main=False)] if with_actions else []
    lines = [
        AlertLine(
            "critical",
            word("critical"),
            t("One device drained the livestream campaign", "单一设备刷空直播间活动"),
            "/alerts/a-1",
            t("¥ 18.4 k at risk", "涉及 ¥ 1.84 万"),
            t("12 min", "12 分钟"),
            "",
            actions,
        ),
        AlertLine(
            "high",
            word("high"),
            t("Claims fell below the expected band", "领取低于预期区间"),
            "/alerts/a-2",
            t("−61% for 20 min", "−61%，持续20分钟"),
            t("48 min", "48 分钟"),
            "lin.yu",
        ),
        AlertLine(
            "warning",
            word("warning"),
            t("Budget of “Free shipping” ends before the sale", "“包邮”预算将提前用尽"),
            "/alerts/a-3",
            t("at 21:40", "预计 21:40"),
            t("2 h", "2 小时"),
            "wang.min",
        ),
    ]
    return AlertList(lines)


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def filters(slider: bool = True) -> FilterBar:
    known = Slider(
        t("as known", "已知于"),
        "known_at",
        [(f"2026-11-11T{h:02d}:00", f"{h:02d}:00") for h in range(8, 21)] + [("", t("now", "现在"))],
        13,
    )
    return FilterBar(
        [
            Choice(
                t("period", "时段"),
                "period",
                [
                    ("", t("Today 11 Nov", "今天 11月11日")),
                    ("yesterday", t("Yesterday", "昨天")),
                    ("7d", t("7 days", "近7天")),
                ],
            ),
            Choice(
                t("against", "对比"),
                "against",
                [("", t("last year", "去年同期")), ("previous", t("previous", "上一时段"))],
            ),
            Choice(
                t("channel", "渠道"),
                "channel",
                [("", t("all", "全部")), ("app", "App"), ("mini", t("mini program", "小程序"))],
            ),
        ],
        further=[Choice(t("region", "地区"), "region", [("", t("all", "全部")), ("east", t("East", "华东"))])],
        slider=known if slider else None,
    )


def now(sort: str = "") -> dict[str, Any]:
    parts: list[Component] = [
        cards(),
        ChartPanel(
            Figure(funnel(), "funnel"),
            t(
                "Biggest loss: claimed → used, ¥ 1.1 M of discount not spent.",
                "最大流失：领取 → 核销，未用优惠 ¥ 110 万。",
            ),
            csv="/x.csv",
        ),
        ChartPanel(Figure(by_minute(), "by-minute"), csv="/x.csv"),
        campaigns_table(sort),
        Panel(t("Open alerts", "未关闭告警"), [alerts()], [Link(t("all alerts", "全部告警"), "/alerts")]),
    ]
    return {"title": t("Now", "实时"), "parts": parts}


def roi() -> Intervals:
    return Intervals(
        t("What it earned per yuan spent", "每花1元的回报"),
        t("ROI with 95% intervals", "ROI及95%置信区间"),
        ROI,
        [
            Interval(t("simple (not incremental)", "简单ROI（非增量）"), 2.1),
            Interval(t("incremental", "增量ROI"), 0.84, 0.31, 1.37, cases=18_204),
            Interval(t("incremental, new customers", "增量，新客"), 1.62, -0.4, 3.1, cases=24),
            Interval(t("incremental, stores", "增量，门店"), None, why=t("no control group", "无对照组")),
        ],
        null=0,
        null_name=t("no effect", "无效果"),
    )


def campaign() -> dict[str, Any]:
    tabs = Tabs(
        t("Views of the campaign", "活动视图"),
        [
            Link(text, f"?tab={n}", here=n == 4)
            for n, text in enumerate(
                t(
                    "Funnel Trend Channels People What_it_caused Money Review",
                    "漏斗 趋势 渠道 人群 带来了什么 资金 复盘",
                ).split()
            )
        ],
    )
    tabs = Tabs(tabs.name, [Link(tab.text.replace("_", " "), tab.href, tab.here) for tab in tabs.tabs])
    steps = [
        Bar(t("more people", "人数增加"), 1_820_000_00),
        Bar(t("bigger orders", "客单价提高"), 640_000_00),
        Bar(t("fewer uses per person", "人均核销减少"), -410_000_00),
        Bar(t("refunds since", "之后的退款"), -223_000_00),
    ]
    parts: list[Component] = [
        Panel(
            t("Terms", "条款"),
            [
                Facts(
                    [
                        (
                            t("claims", "领取"),
                            Cell(t("10 Nov 20:00 – 11 Nov 24:00", "11月10日 20:00 – 11月11日 24:00")),
                        ),
                        (t("worth", "面值"), Cell(t("¥ 30 off ¥ 200", "满200减30"))),
                        (t("stock", "库存"), Cell(t("62% of 300,000 left", "300,000 张剩 62%"), share=0.62)),
                        (t("budget", "预算"), Cell(t("¥ 1.82 M of ¥ 3.00 M", "¥ 182 万 / ¥ 300 万"), share=0.61)),
                        (t("paid by", "出资"), Cell(t("platform 70%, brands 30%", "平台 70%，品牌 30%"))),
                    ]
                )
            ],
        ),
        cards(),
        tabs,
        Sentences(
            [
                t(
                    "The campaign earned: of each yuan it cost, 0.84 came back beyond what people would have spent anyway.",
                    "活动有净回报：每花1元，除本来会发生的消费外多带来0.84元。",
                ),
                t(
                    "95% interval 0.31 to 1.37, from 18,204 people in the control group. Simple ROI (2.10) counts what would have been bought anyway.",
                    "95%置信区间 0.31 至 1.37，对照组 18,204 人。简单ROI（2.10）含本来就会发生的购买。",
                ),
            ]
        ),
        Beside(
            [
                ChartPanel(Figure(roi(), "roi", HALF), csv="/x.csv"),
                ChartPanel(
                    Figure(
                        Waterfall(
                            t("Why GMV changed against 2025", "GMV为何较2025年变化"),
                            t("From last year to today", "从去年到今天"),
                            MONEY,
                            Bar("2025", 7_596_187_55),
                            steps,
                            t("today", "今天"),
                        ),
                        "why",
                        HALF,
                    ),
                    csv="/x.csv",
                ),
            ]
        ),
        Beside(
            [
                ChartPanel(
                    Figure(
                        Bars(
                            t("GMV by channel", "各渠道GMV"),
                            t("Today, last year grey below", "今天，下方灰色为去年"),
                            MONEY,
                            channels(),
                        ),
                        "channels",
                        HALF,
                    )
                ),
                ChartPanel(
                    Figure(
                        week(
                            t("When coupons are used", "何时核销"),
                            t("By weekday and hour", "按星期与小时"),
                            USES,
                            hours(),
                        ),
                        "week",
                        HALF,
                    )
                ),
            ]
        ),
    ]
    under = Chips(
        [
            Link(word("published"), "", tone="here"),
            Link("c-1111-main", ""),
            Link(t("amended 2 times", "变更2次"), "/history"),
        ]
    )
    return {"title": t("Double Eleven main venue", "双十一主会场券"), "under": under, "parts": parts}


def channels() -> list[Bar]:
    names = [
        ("App", "App"),
        ("mini program", "小程序"),
        ("livestream", "直播"),
        ("store", "门店"),
        ("SMS", "短信"),
        ("partner site", "合作网站"),
    ]
    values = [4_210_000_00, 2_730_000_00, 1_320_000_00, 811_000_00, 340_000_00, 9_800_00]
    return [
        Bar(t(*name), value, behind=value * 0.91, cases=22 if n == 5 else 9_000, href=f"/channels/{n}")
        for n, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def hours() -> list[list[float | None]]:
    dice = random.Random("week")
    return [
        [
            round(
                800
                * (0.1 + math.exp(-(((h - 20.5) / 3) ** 2)) + 0.5 * math.exp(-(((h - 12.5) / 1.6) ** 2)))
                * (1.5 if d in (2, 5, 6) else 1)
                * dice.uniform(0.85, 1.1)
            )
            for h in range(24)
        ]
        for d in range(7)
    ]


def at(hour: int, minute: int = 0, days: int = 0) -> datetime:
    return MIDNIGHT + timedelta(days=days, hours=hour, minutes=minute)


def coupon() -> dict[str, Any]:
    moments = [
        Moment(at(20, 0, -1), "created", "created"),
        Moment(at(20, 1, -1), "issued", "issued"),
        Moment(at(0, 2), "claimed", "claimed"),
        Moment(at(9, 15), "reserved", "reserved"),
        Moment(at(9, 21), "used", "used"),
        Moment(at(15, 40), "used", "used", ("used_when_used",)),
        Moment(at(18, 5), "returned", "claimed"),
    ]
    when = view().instant
    entries = [
        Entry(
            f"{word('returned')}",
            when(at(18, 5)),
            t("1 s later", "1 秒后"),
            f"{word('used')} → {word('claimed')}",
            [Link("o-88412", "/orders/o-88412"), Link(t("reason: order cancelled", "原因：订单取消"), "")],
            position="coupon.events 3@1,184,210",
            position_href="/p",
        ),
        Entry(
            f"{word('used')}",
            when(at(15, 40)),
            t("42 min later", "42 分钟后"),
            t("stays used", "保持已核销"),
            [Link("o-90117", "/orders/o-90117"), Link("u-2210", "/users/u-2210")],
            [
                t(
                    "Used again while in use on another order: the second order's discount of ¥ 30.00 is not covered.",
                    "在另一订单上重复核销：第二单的 ¥ 30.00 优惠无券可抵。",
                )
            ],
            position="coupon.events 3@1,102,966",
        ),
        Entry(
            f"{word('used')}",
            when(at(9, 21)),
            t("0.8 s later", "0.8 秒后"),
            f"{word('reserved')} → {word('used')}",
            [Link("o-88412", "/orders/o-88412"), Link("¥ 30.00", "")],
            position="coupon.events 3@871,204",
        ),
        Entry(
            f"{word('reserved')}",
            when(at(9, 15)),
            t("0.6 s later", "0.6 秒后"),
            f"{word('claimed')} → {word('reserved')}",
            [Link("o-88412", "/orders/o-88412")],
            position="coupon.events 3@869,003",
        ),
        Entry(
            f"{word('claimed')}",
            when(at(0, 2)),
            t("1.1 s later", "1.1 秒后"),
            f"{word('issued')} → {word('claimed')}",
            [Link("u-1042", "/users/u-1042"), Link("App", "")],
            position="coupon.events 3@12,880",
        ),
    ]
    known = Slider(
        t("as known at", "已知于"),
        "known_at",
        [(f"2026-11-11T{h:02d}:00", f"{h:02d}:00") for h in range(0, 21)] + [("", t("now", "现在"))],
        21,
    )
    parts: list[Component] = [
        Sentences(
            [
                t(
                    "Claimed and not used; given back at 18:05 after the order was cancelled.",
                    "已领取，未使用；订单取消后于 18:05 退回。",
                ),
                t("One violation, ¥ 30.00 at stake.", "1 项违规，涉及 ¥ 30.00。"),
            ]
        ),
        ChartPanel(Figure(Life(t("Life", "生命周期"), t("States and events", "状态与事件"), moments, NOW), "life")),
        Beside(
            [
                Panel(t("Events", "事件"), [known, Timeline(entries)]),
                Panel(
                    t("Facts", "要素"),
                    [
                        Facts(
                            [
                                (t("owner", "持有人"), Cell("u-1042", "/users/u-1042")),
                                (t("campaign", "活动"), Cell("c-1111-main", "/campaigns/c-1111-main")),
                                (t("order", "订单"), Cell("–", about=t("not in use", "未在用"))),
                                (t("worth", "面值"), Cell("¥ 30.00")),
                                (t("valid until", "有效期至"), Cell("2026-11-12 00:00:00")),
                            ]
                        )
                    ],
                ),
            ],
            wide=True,
        ),
    ]
    under = Chips(
        [Link(word("claimed"), "", tone="here"), Link(t("1 violation", "1 项违规"), "/violations", tone="broken")]
    )
    return {"title": "k-3f9a01c2", "under": under, "parts": parts}


def alert() -> dict[str, Any]:
    dice = random.Random("alert")
    values = [dice.uniform(2, 8) for _ in range(120)]
    values[84:] = [dice.uniform(120, 190) for _ in range(36)]
    times = [NOW - timedelta(minutes=120 - n) for n in range(120)]
    chart = Lines(
        t("Claims per minute from device d-77f0", "设备 d-77f0 每分钟领取"),
        t("Two hours, with what is expected", "两小时，含预期"),
        CLAIMS,
        times,
        [Line("d-77f0", values)],
        band=Band([0.0] * 120, [14.0] * 120),
        notes=[Note(times[85], t("fired", "触发"), "alert")],
    )
    users = [Node(f"u-77{n:02d}", "user_id", 14 - n, href=f"/users/u-77{n:02d}") for n in range(9)]
    nodes = [
        Node("d-77f0", "device_id", 60, suspect=True),
        Node("d-1a20", "device_id", 6),
        *users,
        Node("203.0.113.9", "ip", 44),
        Node("198.51.100.20", "ip", 8),
    ]
    links = (
        [("d-77f0", user.id) for user in users[:8]]
        + [("d-1a20", users[8].id), ("d-1a20", users[7].id)]
        + [(user.id, "203.0.113.9") for user in users[:6]]
        + [(user.id, "198.51.100.20") for user in users[6:]]
    )
    rows = [
        {"user_id": user.id, "claimed_coupons": 420 - 31 * n, "discount_minor": (420 - 31 * n) * 3_000}
        for n, user in enumerate(users)
    ]
    behind = table_of(
        "behind",
        t("Behind it: 9 users", "背后：9 个用户"),
        rows,
        ["user_id", "claimed_coupons", "discount_minor"],
        currency="CNY",
        hrefs={"user_id": [f"/users/{row['user_id']}" for row in rows]},
        csv="/x.csv",
        more=Link(t("all 31", "全部 31 个"), "/users"),
    )
    parts: list[Component] = [
        Sentences(
            [
                t(
                    "One device claimed 2,610 coupons of “Livestream room” in 36 minutes, under 9 user ids.",
                    "一台设备在36分钟内以9个账号领取了“直播间”活动的2,610张券。",
                ),
                t(
                    "At the present rate the stock ends in 2 minutes; ¥ 18,400 of discount are at risk.",
                    "按当前速度库存2分钟后耗尽；涉及优惠 ¥ 18,400。",
                ),
            ],
            tone="broken",
        ),
        Actions(
            [
                Action(t("Take the alert", "认领告警"), "/take", main=True),
                Action(t("Unpublish the campaign", "下线活动"), "/unpublish", "/unpublish?dry", danger=True),
                Action(t("Revoke 2,610 coupons", "作废 2,610 张券"), "/revoke", "/revoke?dry", danger=True),
                Action(t("Silence for 1 h", "静默1小时"), "/silence"),
            ]
        ),
        ChartPanel(
            Figure(chart, "evidence"),
            t("Expected at most 14; 137 at the median since it fired.", "预期至多14；触发后中位数137。"),
            csv="/x.csv",
        ),
        Beside(
            [
                ChartPanel(
                    Figure(
                        Network(
                            t("Who is connected", "关联关系"),
                            t("Devices, users and addresses", "设备、用户与地址"),
                            nodes,
                            links,
                        ),
                        "linked",
                        HALF,
                    )
                ),
                behind,
            ]
        ),
        Panel(
            t("How good the rule is", "规则表现"),
            [
                Facts(
                    [
                        (t("fired in 90 days", "90天触发"), Cell("31")),
                        (t("true", "属实"), Cell("27 (87.1%)")),
                        (t("false", "误报"), Cell("4")),
                        (t("median time to act", "处置时长中位数"), Cell(t("6 min", "6 分钟"))),
                    ]
                )
            ],
            [Link(t("the rule", "规则"), "/rules")],
        ),
    ]
    under = Chips(
        [
            Link(word("critical"), "", tone="broken"),
            Link(t("open for 12 min", "持续12分钟"), ""),
            Link(t("nobody has taken it", "无人认领"), "", tone="attention"),
        ]
    )
    return {
        "title": t("One device drained the livestream campaign", "单一设备刷空直播间活动"),
        "under": under,
        "parts": parts,
    }


def charts() -> dict[str, Any]:
    days = [MIDNIGHT - timedelta(days=13 - n) for n in range(14)]
    kinds = [
        Line(t(*name), [round(9_000 * f * (1 + n / 9)) for n in range(14)])
        for name, f in (
            (("cash", "现金券"), 1.0),
            (("percent", "折扣券"), 0.7),
            (("threshold", "满减券"), 0.5),
            (("shipping", "包邮券"), 0.3),
            (("gift", "礼品券"), 0.2),
            (("other", "其他"), 0.1),
        )
    ]
    cohort: list[list[float | None]] = [
        [1.0, *(0.42 * 0.78**w * (1 - 0.03 * c) if w < 6 - c else None for w in range(6))] for c in range(6)
    ]
    rfm: list[list[float | None]] = [[round(40 * r * f + 37 * ((r * f) % 3)) for f in range(1, 6)] for r in range(1, 6)]
    parts: list[Component] = [
        ChartPanel(
            Figure(
                Columns(t("Uses by day and type", "每日核销（按券类型）"), t("Two weeks", "两周"), USES, days, kinds),
                "stack",
            ),
            csv="/x.csv",
        ),
        Beside(
            [
                ChartPanel(
                    Figure(
                        Grid(
                            t("Who came again", "留存"),
                            t("Share of each cohort, by weeks since", "各批次随周数的占比"),
                            Quantity("use_rate"),
                            [t(f"{d} Oct", f"10月{d}日") for d in (1, 8, 15, 22, 29)] + [t("5 Nov", "11月5日")],
                            [f"+{n}" for n in range(7)],
                            cohort,
                            corner=t("weeks", "周"),
                        ),
                        "cohorts",
                        HALF,
                    )
                ),
                ChartPanel(
                    Figure(
                        Grid(
                            t("Customers by recency and frequency", "客户：最近消费 × 频次"),
                            t("People in each cell", "每格人数"),
                            CLAIMS,
                            [f"R{n}" for n in range(1, 6)],
                            [f"F{n}" for n in range(1, 6)],
                            rfm,
                        ),
                        "rfm",
                        HALF,
                    )
                ),
            ]
        ),
        Beside(
            [
                ChartPanel(
                    Figure(
                        Bars(
                            t("Margin by campaign", "各活动毛利"),
                            t("Some lost money", "有的亏损"),
                            MONEY,
                            [
                                Bar(t("main venue", "主会场"), 820_000_00),
                                Bar(t("beauty", "美妆"), 310_000_00),
                                Bar(t("free shipping", "包邮"), -122_000_00),
                                Bar(t("unknown costs", "成本未知"), None),
                            ],
                        ),
                        "margin",
                        HALF,
                    )
                ),
                ChartPanel(Figure(roi(), "roi-2", HALF)),
            ]
        ),
    ]
    return {"title": t("Charts", "图表"), "parts": parts}


def states() -> dict[str, Any]:
    parts: list[Component] = [
        Panel(
            t("Empty", "空"),
            [
                State(
                    "empty",
                    t("No campaign runs today.", "今天没有进行中的活动。"),
                    t("Choose another day", "选择其他日期"),
                    "/campaigns?period=7d",
                )
            ],
        ),
        Panel(
            t("Loading", "加载中"),
            [
                Skeleton("cards", t("Loading numbers", "正在加载数字")),
                Skeleton("chart", t("Loading a chart", "正在加载图表")),
                Skeleton("table", t("Loading a table", "正在加载表格")),
            ],
        ),
        Panel(
            t("Late", "滞后"),
            [
                State(
                    "late",
                    t(
                        "Data are 14 minutes behind: topic order.events, partition 2.",
                        "数据滞后14分钟：主题 order.events 分区 2。",
                    ),
                    t("See what holds it up", "查看原因"),
                    "/ops",
                )
            ],
        ),
        Panel(
            t("Forbidden", "无权限"),
            [
                State(
                    "forbidden",
                    t("Amounts by user are for the risk role.", "按用户的金额仅限风控角色。"),
                    t("Ask lin.yu for access", "向 lin.yu 申请权限"),
                    "/ops/people",
                )
            ],
        ),
        Panel(
            t("Failed", "失败"),
            [
                State(
                    "failed",
                    t("The question took longer than 20 s and was stopped.", "该查询超过20秒，已停止。"),
                    t("Choose a shorter period", "缩短时段"),
                    "?period=7d",
                    code="question metrics · 7f31c0",
                )
            ],
        ),
    ]
    return {"title": t("States", "状态"), "parts": parts}


PAGES: Final[Mapping[str, tuple[str, Callable[..., dict[str, Any]]]]] = {
    "/now": ("now", now),
    "/campaigns/c-1111-main": ("campaigns", campaign),
    "/coupons/k-3f9a01c2": ("campaigns", coupon),
    "/alerts/a-1": ("alerts", alert),
    "/charts": ("explore", charts),
    "/states": ("ops", states),
}
CRUMBS: Final = {
    "/campaigns/c-1111-main": ("Campaigns", "活动"),
    "/coupons/k-3f9a01c2": ("Campaigns", "活动"),
    "/alerts/a-1": ("Alerts", "告警"),
}


# ── The server ───────────────────────────────────────────────────────────────────────────────────────────────────


class Gallery:
    """The server's state: how many commits there were, and who waits for the next."""

    def __init__(self) -> None:
        self.commit = 4812
        self.refused = False
        self.fetches = 0

    def frame(self, request: Request, here: str, title: str, person: bool = True) -> Frame:
        query = request.query_params
        path = request.url.path
        crumbs = [Link(t(*CRUMBS[path]), path.rpartition("/")[0]), Link(title, "")] if path in CRUMBS else []
        kind = query.get("fresh", "live")
        said = t(
            f"commit {self.commit:,} · data up to 20:14:07 · 2 s behind",
            f"第 {self.commit:,} 次提交 · 数据截至 20:14:07 · 滞后 2 秒",
        )
        return Frame(
            title=title,
            here=here,
            path=str(request.url),
            crumbs=crumbs,
            alerts=3,
            theme=query.get("theme", "auto"),
            freshness=Freshness(kind, said, self.commit) if person else None,
            wall="wall" in query,
            csrf="t0ken",
            clock="20:14:07",
            person=Person("lin.yu", t("operations", "运营")) if person else None,
            filters=filters()
            if person and here in ("now", "campaigns") and "wall" not in query and "coupons" not in path
            else None,
            next_href="/alerts/a-1?wall" if "wall" in query else "",
        )

    def page(self, request: Request) -> Response:
        here, made = PAGES[request.url.path]
        with showing(View(request.query_params.get("lang", "en"), ZONE)):
            parts = made(request.query_params.get("sort", "")) if made is now else made()
            if made is now and "wall" in request.query_params:
                parts["parts"] = [part for n, part in enumerate(parts["parts"]) if n in (0, 2, 4)]
            if request.url.path == "/now" and "live" in request.query_params:
                parts["parts"][0] = Cards([self._counting(), *parts["parts"][0].cards[1:]])
            fragment = request.headers.get(FRAGMENT[0]) == FRAGMENT[1]
            self.fetches += fragment
            return HTMLResponse(
                render("page.html", self.frame(request, here, parts["title"]), fragment=fragment, **parts)
            )

    def _counting(self) -> Any:
        return number_card("claims", "claims", CLAIMS, 180_000 + self.commit, "/explain", history=[1, 2, 3])

    def sign_in(self, request: Request) -> Response:
        with showing(View(request.query_params.get("lang", "en"), ZONE)):
            frame = self.frame(request, "", t("Sign in", "登录"), person=False)
            failed = (
                t("Name or password is wrong. Try again.", "用户名或密码错误，请重试。")
                if "failed" in request.query_params
                else ""
            )
            elsewhere = [Link(t("Sign in with the company account", "使用公司账号登录"), "/sso")]
            return HTMLResponse(render("sign_in.html", frame, failed=failed, elsewhere=elsewhere, back="/now"))

    def missing(self, request: Request) -> Response:
        with showing(View(request.query_params.get("lang", "en"), ZONE)):
            state = State(
                "empty",
                t("There is no page at this address.", "此地址没有页面。"),
                t("Go to Now", "前往实时页"),
                "/now",
            )
            return HTMLResponse(error_page(self.frame(request, "", t("Not found", "未找到")), state), 404)

    async def live(self, _: Request) -> Response:
        if self.refused:
            return Response(status_code=503)

        async def events() -> AsyncIterator[str]:
            seen = 0
            yield "event: beat\ndata: \n\n"
            while not self.refused:
                await asyncio.sleep(0.02)
                if self.commit != seen:
                    seen = self.commit
                    yield f'event: commit\ndata: {{"commits": {seen}}}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    def app(self) -> Starlette:
        routes = [Route(path, self.page) for path in PAGES]
        routes += [
            Route("/sign-in", self.sign_in),
            Route("/live", self.live),
            Route("/", lambda _: RedirectResponse("/now")),
        ]
        routes += [Route("/static/{name}", self.static), Route("/{path:path}", self.missing)]
        return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_with_policy)])

    def static(self, request: Request) -> Response:
        contents, kind = static(request.path_params["name"])
        return Response(contents, media_type=kind, headers={"Cache-Control": "max-age=31536000, immutable"})


async def _with_policy(request: Request, answer: RequestResponseEndpoint) -> Response:
    given = await answer(request)
    given.headers["Content-Security-Policy"] = POLICY
    return given


@contextmanager
def served(port: int = 0) -> Iterator[tuple[Gallery, str]]:
    """The gallery, and its address on loopback."""
    gallery = Gallery()
    server = uvicorn.Server(
        uvicorn.Config(gallery.app(), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    try:
        yield gallery, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        gallery.refused, server.should_exit = True, True
        thread.join(10)


SCREENS: Final = {"phone": (390, 844), "desk": (1280, 900), "wall": (3840, 2160)}


def pictures(folder: Path, only: str = "") -> None:
    """Screenshots of all pages on a phone and a desk, in both languages and themes; and of the wall."""
    from playwright.sync_api import sync_playwright

    from tests import browser

    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        **{path.split("/")[1]: path for path in PAGES},
        "sign-in": "/sign-in",
        "sign-in-failed": "/sign-in?failed",
        "not-found": "/nowhere",
    }
    with served() as (_, address), sync_playwright() as play:
        command = browser.command()
        chromium = play.chromium.launch(executable_path=command[0], args=["--no-sandbox"])
        for screen, (width, height) in SCREENS.items():
            for name, path in paths.items():
                for lang in ("en", "zh"):
                    for theme in ("light", "dark"):
                        file = f"{name}-{screen}-{lang}-{theme}.png"
                        if only not in file or (screen == "wall" and name not in ("now", "alerts")):
                            continue
                        page = chromium.new_page(
                            viewport={"width": width, "height": height},
                            has_touch=screen == "phone",
                            is_mobile=screen == "phone",
                            device_scale_factor=2 if screen == "phone" else 1,
                        )
                        query = f"lang={lang}&theme={theme}{'&wall' if screen == 'wall' else ''}"
                        page.goto(f"{address}{path}{'&' if '?' in path else '?'}{query}")
                        if screen != "wall":  # so tall that bars which stick to the window's edge cover nothing
                            tall = page.evaluate("document.documentElement.scrollHeight")
                            page.set_viewport_size({"width": width, "height": max(height, tall)})
                        page.screenshot(path=folder / file)
                        page.close()
        chromium.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["pictures"]:
        pictures(Path(sys.argv[2]), *sys.argv[3:])
    else:
        with served(8090) as (_, address):
            print(f"the gallery is at {address}")
            with suppress(KeyboardInterrupt):
                Event().wait()
