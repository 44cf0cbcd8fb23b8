"""A review's page in a real browser, as people see it: on a wide screen, on a telephone, in the dark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests import browser
from tests.command_line import done, ndjson
from tests.test_customers import COUPONS, ORDERS, TOUCHES
from tests.test_review import TARGETS

pytestmark = [pytest.mark.slow, pytest.mark.browser]

# Of each chart, table and text what the browser made of it. The page's policy lets no script run: the copy has none.
MEASURE = """<script>
const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const under = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
const contrast = e => { const [a, b] = [light(getComputedStyle(e).color), light(under(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
const all = s => [...document.querySelectorAll(s)];
const told = {
  overflow: document.documentElement.scrollWidth - innerWidth,
  charts: all('figure svg').map(e => ({box: box(e), shapes: e.querySelectorAll('path').length,
    smallest: Math.min(...[...e.querySelectorAll('text')].map(t => t.getBoundingClientRect().height))})),
  tables: all('table').map(e => ({box: box(e), rows: e.rows.length})),
  contrast: Math.min(...all('p, td, th, a, li, summary, small, .card b, .card span').map(contrast)),
};
const place = document.body.appendChild(document.createElement('pre'));
place.id = 'measured';
place.textContent = JSON.stringify(told);
</script></body>"""
SCREENS = {
    "wide": ("--window-size=1280,900",),
    "telephone": ("--window-size=500,900",),
    "dark": ("--window-size=1280,900", "--blink-settings=preferredColorScheme=0"),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    browser.command()
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("page")
        patched.chdir(folder)
        told = [{k: v for k, v in e.items() if v is not None} for e in (*TARGETS, *ORDERS, *COUPONS, *TOUCHES)]
        done("init")
        done("publish", "-", stdin=ndjson(told))
        done("consume")
        done("review", "k", "--goods-rate", "60", "--to", "review.html")
        yield folder / "review.html"


def test_it_opens_without_a_complaint_and_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    """A page that is sent around must work where nothing else can be reached."""
    dom, console = browser.open_page(page, tmp_path / "profile")
    assert console == []
    assert "Campaign review" in dom and dom.count("<figure") >= 4


@pytest.mark.parametrize("screen", SCREENS)
def test_charts_and_tables_are_drawn(page: Path, tmp_path: Path, screen: str) -> None:
    """Else people get empty boxes, text that they cannot read, or must push the page from side to side."""
    seen = _measured(page, tmp_path, SCREENS[screen])
    assert seen["overflow"] <= 0
    assert len(seen["charts"]) >= 4 and len(seen["tables"]) >= 10
    for chart in seen["charts"]:
        assert min(chart["box"]) > 60 and chart["shapes"] > 2 and chart["smallest"] > 6
    for table in seen["tables"]:
        assert min(table["box"]) > 20 and table["rows"] > 1
    assert seen["contrast"] >= 4.5


def test_its_charts_have_their_colors(page: Path, tmp_path: Path) -> None:
    """What is in the page and cannot be seen would still be counted above."""
    from matplotlib.image import imread

    image = tmp_path / "seen.png"
    browser.open_page(page, tmp_path / "profile", "--window-size=1280,4000", f"--screenshot={image}")
    red, green, blue = (imread(image)[:, :, n] * 255 for n in range(3))
    bars = (abs(red - 0x1F) < 3) & (abs(green - 0x5F) < 3) & (abs(blue - 0xB4) < 3)
    assert bars.sum() > 2_000


def _measured(page: Path, folder: Path, options: tuple[str, ...]) -> dict[str, Any]:
    copy = folder / "measured.html"
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    copy.write_text(html.replace("</body>", MEASURE), encoding="utf-8")
    dom, _ = browser.open_page(copy, folder / "profile", *options)
    told = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert told, dom[-500:]
    found: dict[str, Any] = json.loads(unescape(told[1]))
    return found
