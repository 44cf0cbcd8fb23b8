"""The design system keeps its rules: contrasts, no inline style or script, no text of a person as markup, both
languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from coupon_ledger.api.pages.components import (
    FRESH,
    STATES,
    Cell,
    ChartPanel,
    Choice,
    FilterBar,
    Freshness,
    Head,
    Link,
    Person,
    Sorting,
    State,
    Table,
    number_card,
    table_of,
)
from coupon_ledger.api.pages.rendering import PAGES, POLICY, STATIC, THEMES, Frame, render, show, static, static_url
from coupon_ledger.ledger.labels import section
from coupon_ledger.ledger.words import catalogue
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Bars
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.view import View, showing
from tests import gallery

FOLDER: Final = Path(__file__).parent.parent / "api" / "pages"
CSS: Final = (FOLDER / "static" / "design.css").read_text(encoding="utf-8")
SCRIPT: Final = (FOLDER / "static" / "page.js").read_text(encoding="utf-8")
TEMPLATES: Final = {
    path.name: path.read_text(encoding="utf-8") for path in sorted((FOLDER / "templates").glob("*.html"))
}
EVIL: Final = """<img src=x onerror="alert(1)">'&{{ 7 * 7 }}"""
FRAME: Final = Frame("Now", "now", "/now", Freshness("live", "commit 1", 1), Person("lin", "ops"), csrf="t0ken")


# ── Colours ──────────────────────────────────────────────────────────────────────────────────────────────────────


def tokens(selector: str) -> dict[str, str]:
    """The custom properties of the block that begins with the selector."""
    block = CSS[CSS.index(f"{selector} {{") :]
    return dict(re.findall(r"--([\w-]+): ([^;]+);", block[: block.index("}")]))


LIGHT: Final = tokens(":root")
DARK: Final = LIGHT | tokens(':root[data-theme="dark"]')


def luminance(color: str) -> float:
    channels = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


TEXTS: Final = [
    *((ink, ground) for ink in ("ink", "soft", "faint") for ground in ("page", "card", "sunk")),
    *(("accent", ground) for ground in ("page", "card", "sunk", "accent-ground")),
    ("on-accent", "accent"),
    *(
        (tone, ground)
        for tone in ("attention", "broken", "resolved")
        for ground in ("page", "card", "sunk", f"{tone}-ground")
    ),
    *((ink, f"{tone}-ground") for ink in ("ink", "soft") for tone in ("attention", "broken")),
    ("page", "ink"),
]
SHAPES: Final = [
    ("edge", "card"),
    ("edge", "page"),
    ("compare", "card"),
    ("s1", "card"),
    ("attention-mark", "card"),
    ("broken", "card"),
]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_and_shapes_can_be_told_from_their_ground(theme: dict[str, str]) -> None:
    """WCAG 2.2 AA. Else somebody at a window, or with weak eyes, cannot read a number."""
    assert not [(ink, ground) for ink, ground in TEXTS if contrast(theme[ink], theme[ground]) < 4.5]
    assert not [(shape, ground) for shape, ground in SHAPES if contrast(theme[shape], theme[ground]) < 3]


def test_the_system_and_the_choice_give_the_same_dark_theme() -> None:
    assert tokens(':root[data-theme="auto"]') == tokens(':root[data-theme="dark"]')
    assert {f"s{n}" for n in range(1, 7)} <= LIGHT.keys()


def test_every_colour_is_a_token() -> None:
    """Else it stays as it is in the other theme, and gets a second meaning."""
    rest = CSS[CSS.index("/* ── Ground") : CSS.index("/* ── Paper")]
    assert not re.findall(r"#[0-9a-f]{3,8}\b", rest)
    assert set(re.findall(r"rgb\([^)]*\)", rest)) <= {"rgb(0 0 0 / 12%)", "rgb(0 0 0 / 40%)"}
    assert set(re.findall(r"var\(--([\w-]+)\)", CSS)) <= LIGHT.keys()
    sizes = set(re.findall(r"font-size: ([^;]+);", rest))
    assert {size for size in sizes if not size.startswith("var(--size-")} <= {".625rem", "12px", "20px", "150%", "200%"}
    assert set(re.findall(r"font-weight: (\d+)", CSS)) == {"400", "600"}


# ── Nothing inline ───────────────────────────────────────────────────────────────────────────────────────────────


class Page(HTMLParser):
    """What a strict policy would block, and what a page says."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.blocked: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self._quiet = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"] or ""] if "id" in given else []
        self._quiet += tag == "script"
        if tag == "style" or (tag == "script" and not (given.get("src") or "").startswith("/static/")):
            self.blocked.append(tag)
        self.blocked += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.blocked += [
            f"{tag} {value}" for value in given.values() if (value or "").lower().startswith("javascript:")
        ]
        self.texts += [given[name] or "" for name in ("aria-label", "placeholder", "title") if given.get(name)]

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag == "script"

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._quiet:
            self.texts.append(data.strip())


def pages(lang: str) -> Iterator[tuple[str, Page]]:
    with showing(View(lang, "Asia/Shanghai")):
        for path, (here, parts) in gallery.PAGES.items():
            frame = Frame("t", here, path, Freshness("live", ""), Person("lin.yu", ""), filters=gallery.filters())
            yield path, Page(render("page.html", frame, **parts()))
        yield (
            "sign-in",
            Page(render("sign_in.html", Frame("t", "", "/"), failed="！", elsewhere=[Link("x", "/x")], back="/")),
        )


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.long
def test_pages_have_nothing_that_a_strict_policy_blocks(lang: str) -> None:
    for path, page in pages(lang):
        assert not page.blocked, path
        assert len(page.ids) == len(set(page.ids)), f"{path}: {[i for i in page.ids if page.ids.count(i) > 1]}"
        assert page.tags.count("h1") == 1 and page.tags.count("main") == 1


def test_templates_trust_no_text() -> None:
    """`|safe` or `Markup` of a value lets a campaign's name run as a script."""
    for name, text in TEMPLATES.items():
        assert not re.search(r"\|\s*safe\b|autoescape|\sstyle=|<style|\son\w+=|javascript:", text), name
    for path in (*FOLDER.glob("*.py"), *(FOLDER.parent.parent / "reports" / "svg").glob("*.py")):
        made = re.findall(r"Markup\(([^)]*)\)", path.read_text(encoding="utf-8"))
        assert all(re.fullmatch(r'""|"<[^"]*>"|\' \{\}="\{\}"\'', text) for text in made), (
            path.name,
            made,
        )
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", SCRIPT)
    assert "unsafe" not in POLICY


def test_a_persons_text_stays_text_in_every_component() -> None:
    rows = [{"campaign_id": EVIL, "discount_minor": 5}]
    chart = ChartPanel(Figure(Bars(EVIL, EVIL, Quantity("net_uses"), [Bar(EVIL, 3, href="/x")]), "k"), EVIL)
    parts = [
        chart,
        table_of(
            "t", EVIL, rows, ["campaign_id", "discount_minor"], currency="CNY", hrefs={"campaign_id": [f"/{EVIL}"]}
        ),
        number_card("c", EVIL, Quantity("net_uses"), 3, f"/{EVIL}", definition=EVIL, position=EVIL),
        *(State(kind, EVIL, EVIL, "/x", EVIL) for kind in STATES),
        FilterBar([Choice(EVIL, EVIL, [(EVIL, EVIL)])], slider=None, hidden={EVIL: EVIL}),
    ]
    html = render(
        "page.html", Frame(EVIL, "now", EVIL, Freshness("live", EVIL), Person(EVIL, EVIL)), title=EVIL, parts=parts
    )
    assert "<img" not in html and "49" not in html and "&lt;img" in html
    assert not Page(html).blocked


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_text_of_a_template_is_in_both_languages() -> None:
    said = {
        text
        for html in TEMPLATES.values()
        for text in re.findall(r"""\bsay\((["'])(.+?)\1\)""", html)
        for text in text[1:]
    }
    assert len(said) >= 40 and not sorted(said - catalogue().keys())
    for name, html in TEMPLATES.items():
        bare = re.sub(
            r"<[^<>]*>", " ", re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", html, flags=re.DOTALL), flags=re.DOTALL
        )
        assert not set(re.findall(r"[A-Za-z]{2,}", bare)) - {"doctype", "html", "PNG", "CSV"}, name


def test_codes_of_pages_have_words() -> None:
    assert section("pages").keys() == PAGES.keys() and section("freshness").keys() == set(FRESH)
    assert section("themes").keys() == set(THEMES)
    assert len(set(PAGES.values())) == len(PAGES), "each page has a letter of its own"


@pytest.mark.long
def test_a_page_in_chinese_has_no_english_word() -> None:
    """The names that the sample data have in both languages stay as they are."""
    known = "App ROI GMV PNG CSV English CNY IP Asia Shanghai UTC Singapore Europe Berlin America New York".split()
    known += "lin yu wang min coupon order events question metrics".split()
    for path, page in pages("zh"):
        text = " ".join(page.texts)
        words = set(re.findall(r"[A-Za-z]{2,}", re.sub(r"\b[\w.]+-[\w-]+\b|\b\d\w+|\w+…\w+", " ", text))) - set(known)
        assert not words, (path, words)


# ── Frame, fragment, tables ──────────────────────────────────────────────────────────────────────────────────────


def test_a_fragment_has_what_changes_and_no_more() -> None:
    """`page.js` fetches it at every commit."""
    whole = render("page.html", FRAME, title="Now", parts=[])
    part = render("page.html", FRAME, fragment=True, title="Now", parts=[])
    assert len(part) < len(whole) / 5
    for there in ('id="main"', 'id="freshness"', "data-badge", "<title>Now"):
        assert there in part and there in whole
    assert "<nav" not in part and "<script" not in part


def test_every_form_that_changes_something_has_the_token() -> None:
    """Else another site can sign people out, or take their alerts."""
    with showing(View("en")):
        html = render("page.html", FRAME, **gallery.alert())
    forms = re.findall(r'<form method="post".*?</form>', html, re.DOTALL)
    assert len(forms) >= 6 and all('name="csrf" value="t0ken"' in form for form in forms)


def test_people_see_the_pages_that_they_may_open() -> None:
    frame = Frame("t", "now", "/", person=Person("kim", "support", frozenset({"now", "alerts"})))
    html = render("page.html", frame, title="t", parts=[])
    assert 'href="/now"' in html and 'href="/finance"' not in html
    assert 'href="/alerts"' not in render("page.html", Frame("t", "", "/"), title="t", parts=[])


def test_a_table_sorts_by_url_and_names_the_currency_in_the_head() -> None:
    sorting = Sorting("/now?sort={sort}", by="-discount_minor")
    assert sorting.of("discount_minor") == ("/now?sort=discount_minor", "descending")
    assert sorting.of("claims") == ("/now?sort=-claims", "")
    rows = [{"campaign_id": "k", "discount_minor": 123_456}]
    table = table_of("t", "Campaigns", rows, ["campaign_id", "discount_minor"], currency="CNY", sorting=sorting)
    assert table.heads[1] == Head("discount (CNY)", True, "/now?sort=discount_minor", "descending")
    assert table.rows[0][1] == Cell("1,234.56")
    assert 'aria-sort="descending"' in show(table)


def test_an_empty_table_says_what_to_do() -> None:
    html = show(
        Table("t", "Campaigns", [Head("name")], [], empty=State("empty", "No campaign runs.", "Choose a day", "/d"))
    )
    assert "No campaign runs." in html and 'href="/d"' in html and "<table" not in html


def test_a_card_of_few_cases_is_hollow_and_an_unknown_one_says_why() -> None:
    few = number_card("a", "use rate", Quantity("use_rate"), 0.4, "/x", cases=12)
    unknown = number_card("a", "ROI", Quantity("simple_roi"), None, "/x", why_unknown="known on 25 Nov")
    assert (few.hollow, few.note, few.text) == (True, "n = 12", "40.0%")
    assert (unknown.hollow, unknown.unknown, unknown.note) == (False, True, "known on 25 Nov")
    assert 'class="card hollow"' in show(few) and 'class="card unknown"' in show(unknown)


def test_static_files_are_named_by_their_contents() -> None:
    """Else a browser shows yesterday's styles with today's page."""
    for name in STATIC:
        assert re.fullmatch(rf"/static/{re.escape(name)}\?[0-9a-f]{{12}}", static_url(name))
        assert static(name)[0]
    with pytest.raises(KeyError):
        static("../rendering.py")
