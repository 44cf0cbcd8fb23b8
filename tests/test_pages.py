"""The pages in a real browser: whether everybody can use them (axe), and what `page.js` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import pytest

from coupon_ledger.ledger.amounts import count
from tests import browser, gallery

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PATHS: Final = (*gallery.PAGES, "/sign-in?failed", "/nowhere")
SETTLED_MS: Final = 15_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    command = browser.command()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=command[0], args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture
def served() -> Iterator[tuple[gallery.Gallery, str]]:
    with gallery.served() as both:
        yield both


@pytest.fixture
def page(chromium: Browser, served: tuple[gallery.Gallery, str]) -> Iterator[Page]:
    """The page Now, with a number that counts the commits. A complaint of the browser fails the test."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.set_default_timeout(SETTLED_MS)
    opened.goto(f"{served[1]}/now?live")
    yield opened
    opened.close()
    assert not [text for text in complaints if "Failed to load resource" not in text and "net::" not in text]


def commit(served: tuple[gallery.Gallery, str]) -> str:
    """A commit, and the number that the first card shows after it."""
    served[0].commit += 1
    return count(180_000 + served[0].commit)


def shows(page: Page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('.card-number').textContent === text", arg=text)


def settled(page: Page) -> None:
    """No fetch is in flight, and none is due."""
    page.wait_for_function("() => !fetching && !outdated")


def serious(page: Page) -> list[str]:
    """What axe finds serious, without rules that are about the page's place on a site."""
    if not page.evaluate("() => 'axe' in window"):
        # The page's policy lets no script of others run; what the driver evaluates is not of the page.
        page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8") + "; true")
    found: Any = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")
    assert len(found["passes"]) > 10
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_nothing_serious(chromium: Browser, path: str, theme: str) -> None:
    """Else somebody cannot read, hear or reach a part of a page."""
    with gallery.served() as (_, address):
        for width in (1280, 390):
            page = chromium.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
            page.goto(f"{address}{path}{'&' if '?' in path else '?'}theme={theme}")
            assert not serious(page), width
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, "it scrolls sideways"
            page.close()


def test_a_commit_changes_the_number_and_nothing_that_somebody_does(page: Page, served: Any) -> None:
    """Else a live page takes the focus, closes what is open, and jumps while somebody reads."""
    page.locator("#by-minute details.numbers summary").click()
    page.locator(".search input").fill("half a wo")
    page.locator("#campaigns tbody a").first.focus()
    page.evaluate("scrollTo(0, 400); window.sameCard = document.querySelector('.card')")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#campaigns-title'))")
    before = page.locator(".card").nth(1).bounding_box()
    shows(page, expected := commit(served))
    assert page.evaluate("scrollY") == 400 and page.locator(".card").nth(1).bounding_box() == before
    assert page.evaluate("window.sameCard === document.querySelector('.card')")
    assert (
        page.evaluate("document.activeElement.textContent") == page.locator("#campaigns tbody a").first.text_content()
    )
    assert page.evaluate("getSelection().toString()") == "Campaigns"
    assert page.locator("#by-minute details.numbers").get_attribute("open") is not None
    assert page.locator(".search input").input_value() == "half a wo"
    fading = page.locator("[data-live].fresh-number")
    assert fading.all_text_contents() == [expected], "only what changed fades"
    assert count(served[0].commit) in (page.locator("#freshness").text_content() or "")


def test_many_commits_are_few_fetches(page: Page, served: Any) -> None:
    """Else a busy ledger is asked by every open page at each of its commits."""
    shows(page, commit(served))
    settled(page)
    before = served[0].fetches
    slow: list[Any] = []

    def hold(route: Any) -> None:
        slow.append(route)

    page.route("**/now*", hold)
    with page.expect_request("**/now*"):
        commit(served)
    for _ in range(5):
        page.evaluate("() => { refresh(); }")
    page.wait_for_timeout(100)
    assert len(slow) == 1, "one is in flight"
    expected = commit(served)
    slow[0].continue_()
    page.unroute("**/now*")
    shows(page, expected)
    assert served[0].fetches - before <= 3


def test_pause_stops_and_resume_catches_up(page: Page, served: Any) -> None:
    shows(page, commit(served))
    settled(page)
    page.keyboard.press("p")
    assert page.locator("[data-pause]").get_attribute("aria-pressed") == "true"
    before = served[0].fetches
    expected = commit(served)
    page.wait_for_timeout(200)
    assert served[0].fetches == before
    page.locator("[data-pause]").click()
    shows(page, expected)


def test_a_page_says_that_the_service_is_away_and_recovers(page: Page, served: Any) -> None:
    """Else somebody decides by numbers of an hour ago that look like those of now."""
    shows(page, commit(served))
    served[0].refused = True
    page.wait_for_selector(".fresh.disconnected")
    assert "trying again" in (page.locator("#freshness").text_content() or "")
    expected = commit(served)
    served[0].refused = False
    shows(page, expected)
    page.wait_for_selector(".fresh.live")


def test_the_keyboard_reaches_everything(page: Page, served: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("?")
    assert page.locator(".search input").input_value() == "?", "what is typed is no command"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('tr').rowIndex") == 2
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.closest('tr').rowIndex") == 1
    page.locator("details.person summary").click()
    page.keyboard.press("Escape")
    assert page.locator("details.person").get_attribute("open") is None
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/alerts")


def test_a_chart_says_its_exact_values_to_pointer_and_keyboard(page: Page) -> None:
    chart = page.locator("#by-minute .chart.wide")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "claimed" in (page.locator("#tip").text_content() or "")
    chart.focus()
    page.keyboard.press("Home")
    said = page.locator("#tip").text_content() or ""
    assert said.startswith("2026-11-11 00:00:00") and page.locator("#announce").text_content() == said
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").text_content() != said
    page.locator("#funnel .chart.wide").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").text_content() == "Issued\n400,000"


def test_a_chart_becomes_a_picture(page: Page, tmp_path: Any) -> None:
    with page.expect_download() as download:
        page.locator('[data-png="by-minute"]').click()
    download.value.save_as(tmp_path / "chart.png")
    assert download.value.suggested_filename == "Claims and uses by minute.png"
    from matplotlib.image import imread

    image = imread(tmp_path / "chart.png")
    blue = (
        (abs(image[:, :, 0] - 0) < 0.05) & (abs(image[:, :, 1] - 0.447) < 0.05) & (abs(image[:, :, 2] - 0.698) < 0.05)
    )
    assert image.shape[1] == 2 * 1232 and blue.sum() > 2_000


def test_a_slider_and_a_choice_move_the_url(page: Page) -> None:
    """A view is a URL: what somebody sees can be sent to somebody else."""
    page.locator(".filters input[type=range]").fill("3")
    page.wait_for_url("**known_at=2026-11-11T11*")
    assert page.locator(".slider output").text_content() == "11:00"
    page.locator(".filters select[name=channel]").select_option("app")
    page.wait_for_url("**channel=app*")
    assert "known_at=2026-11-11T11" in page.url and "period=" not in page.url


def test_it_works_without_a_script(chromium: Browser, served: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{served[1]}/now")
    page.locator(".filters select[name=channel]").select_option("app")
    page.locator(".filters > button", has_text="Apply").click()
    assert "channel=app" in page.url
    assert not page.locator("[data-png]").first.is_visible()
    page.locator("#funnel summary").click()
    assert page.locator("#funnel table").is_visible()
    context.close()
