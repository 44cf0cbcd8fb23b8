"""Pages as HTML: the frame of a view, and the templates that draw it. Everything is escaped (`autoescape`); a template
has no script and no style of its own, so a strict policy (`POLICY`) holds for every page.

A page in a request of `page.js` (`FRAGMENT` in its headers) comes without what does not change: its head and its bars.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.api.pages.components import Component, FilterBar, Freshness, Link, Person, State
from coupon_ledger.reports.labels import label, say, word, word_of
from coupon_ledger.reports.view import view

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
    " font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of every page."""
FRAGMENT: Final = ("X-Fragment", "main")
"""The header with which `page.js` asks for the changing part of a page alone."""
STATIC: Final = ("design.css", "page.js", "icon.svg")
"""What pages load, beside this module in `static/`."""
THEMES: Final = ("auto", "light", "dark")
THEME_COOKIE: Final = "theme"

PAGES: Final[Mapping[str, str]] = {
    "now": "n",
    "campaigns": "c",
    "customers": "u",
    "finance": "f",
    "alerts": "a",
    "explore": "e",
    "ops": "o",
    "replay": "r",
}
"""The pages of the top bar, with the letter that opens each after `g`. Each is at its name."""
ON_PHONE: Final = ("now", "campaigns", "finance", "alerts")
"""The pages of the bar at the bottom of a phone; the fifth place opens the others."""


@dataclass(frozen=True)
class Frame:
    """What surrounds a page. `here`: the key of its entry in `PAGES`. `path`: the URL of this view, which is also where
    a sign-in comes back to. `csrf`: the token that every form carries. `crumbs`: the way up. `next_href`: what a wall
    shows after this."""

    title: str
    here: str
    path: str
    freshness: Freshness | None = None
    person: Person | None = None
    filters: FilterBar | None = None
    crumbs: Sequence[Link] = ()
    alerts: int = 0
    theme: str = "auto"
    wall: bool = False
    next_href: str = ""
    csrf: str = ""
    clock: str = ""

    @property
    def pages(self) -> list[tuple[str, Link, str]]:
        """Key, link and letter of the pages that this person may open."""
        allowed = self.person.pages if self.person else None
        return [
            (key, Link(word_of("pages", key), f"/{key}", here=key == self.here), letter)
            for key, letter in PAGES.items()
            if allowed is None or key in allowed
        ]

    @property
    def on_phone(self) -> list[tuple[str, Link, str]]:
        return [page for page in self.pages if page[0] in ON_PHONE]

    @property
    def folded(self) -> list[tuple[str, Link, str]]:
        return [page for page in self.pages if page[0] not in ON_PHONE]


def render(template: str, frame: Frame, *, fragment: bool = False, **parts: Any) -> str:
    """The page `template` with its parts. The reader's language and zone are those of `reports.view`."""
    layout = "fragment.html" if fragment else "frame.html"
    token = _csrf.set(frame.csrf)
    try:
        return _environment().get_template(template).render(layout=layout, frame=frame, **parts)
    finally:
        _csrf.reset(token)


_csrf: ContextVar[str] = ContextVar("csrf", default="")


def show(component: Component | None) -> Markup | str:
    """The component as HTML; nothing for None."""
    if component is None:
        return ""
    macros = _environment().get_template("components.html").module
    drawn: Markup = getattr(macros, component.macro)(component)
    return drawn


def error_page(frame: Frame, state: State) -> str:
    """A page that says what is wrong and what to do, instead of its content."""
    return render("state.html", frame, state=state)


@cache
def static(name: str) -> tuple[bytes, str]:
    """The contents and the type of a static file. Raises KeyError for a name that is none."""
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    if name not in STATIC:
        raise KeyError(name)
    contents = files(__package__).joinpath("static", name).read_bytes()
    return contents, f"{kinds[name.rpartition('.')[2]]}; charset=utf-8"


@cache
def static_url(name: str) -> str:
    """Where a page loads the file. The URL changes with its contents, so browsers may keep it for ever."""
    return f"/static/{name}?{hashlib.sha256(static(name)[0]).hexdigest()[:12]}"


def said_by_script() -> Mapping[str, str]:
    """What `page.js` says by itself, by key, in the reader's language."""
    return {
        "disconnected": say("connection lost; trying again"),
        "stale": say("no news for a while; numbers may be old"),
        "copied": say("link copied"),
    }


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_template),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "say": say,
        "csrf": _csrf.get,
        "label": label,
        "word": word,
        "word_of": word_of,
        "view": view,
        "show": show,
        "static_url": static_url,
        "said_by_script": said_by_script,
        "zones": ZONES,
        "languages": LANGUAGES,
        "themes": THEMES,
    }
    return made


def _template(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


LANGUAGES: Final = {"en": "English", "zh": "中文"}
ZONES: Final = ("Asia/Shanghai", "UTC", "Asia/Singapore", "Europe/Berlin", "America/New_York")
"""The zones that the menu offers; a URL or a cookie may name any other."""
