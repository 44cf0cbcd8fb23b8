"""Elements of SVG. Every text and every attribute is escaped here, so that no data become markup."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

Point = tuple[float, float]


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element. In names of attributes `_` stands for `-`, and a last `_` for nothing; None leaves one out.
    `children`: texts, which are escaped, or elements."""
    pairs = [(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None]
    written = Markup("").join(
        Markup(' {}="{}"').format(name, value if isinstance(value, str) else number(value)) for name, value in pairs
    )
    inside = Markup("").join(escape(child) for child in children)
    form = Markup("<{0}{1}>{2}</{0}>") if inside else Markup("<{0}{1}/>")
    return form.format(tag, written, inside)


def group(*children: str, **attributes: str | float | None) -> Markup:
    return element("g", *children, **attributes)


def words(x: float, y: float, text: str, look: str = "", anchor: str | None = None) -> Markup:
    """A text at a point. `anchor`: `middle` or `end`; it starts there otherwise."""
    return element("text", text, x=x, y=y, class_=look or None, text_anchor=anchor)


def rect(x: float, y: float, width: float, height: float, look: str, **more: str | float | None) -> Markup:
    """A rectangle; a negative width or height reaches to the other side."""
    left, top = min(x, x + width), min(y, y + height)
    return element("rect", x=left, y=top, width=abs(width), height=abs(height), class_=look, **more)


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=look)


def path(points: Iterable[Point], look: str, closed: bool = False) -> Markup:
    """A line through the points, or an area if it is `closed`."""
    d = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=f"M{d}{'Z' if closed else ''}", class_=look) if d else Markup("")


def mark(tip: str, *children: str, look: str = "", href: str | None = None) -> Markup:
    """Something that shows `tip`, its exact value, when pointed at or reached with the arrow keys."""
    inside = group(*children, class_=f"mark {look}".strip(), data_tip=tip)
    return inside if href is None else element("a", inside, href=href)
