"""A small graph of linked ids, for an alert: each kind of id in a column of its own, and a line for each link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.svg import markup
from coupon_ledger.reports.svg.figure import Drawing, Numbers
from coupon_ledger.reports.svg.markup import number
from coupon_ledger.reports.svg.scales import fitted, width_of

MOST_NODES: Final = 40
_ROW: Final = 26
_ROUNDS: Final = 4


@dataclass(frozen=True)
class Node:
    """An id. `kind`: the name of its column. `weight`: how many events, for its size. `suspect`: whether it is at
    fault."""

    id: str
    kind: str
    weight: int = 1
    suspect: bool = False
    href: str | None = None


@dataclass(frozen=True)
class Network:
    """`links`: pairs of ids. The caller leaves out all but the forty largest nodes, and says how many they were."""

    title: str
    about: str
    nodes: Sequence[Node]
    links: Sequence[tuple[str, str]]

    def __post_init__(self) -> None:
        if len(self.nodes) > MOST_NODES:
            raise ValueError(f"a graph has at most {MOST_NODES} ids, not {len(self.nodes)}; keep the largest")

    def draw(self, width: float) -> Drawing:
        columns = self._columns()
        last = list(columns.values())[-1] if columns else []
        step = (width - 26 - max((width_of(node.id) for node in last), default=0)) / max(1, len(columns) - 1)
        tallest = max(map(len, columns.values()), default=0)
        at = {
            node.id: (n * step + 10, 40 + _ROW * (k + (tallest - len(column)) / 2))
            for n, column in enumerate(columns.values())
            for k, node in enumerate(column)
        }
        heads = [markup.words(n * step + 2, 13, label(kind), "tick") for n, kind in enumerate(columns)]
        links = [self._link(a, b, at) for a, b in self.links if a in at and b in at]
        nodes = [self._node(node, at[node.id], step) for column in columns.values() for node in column]
        return Drawing(width, 40.0 + _ROW * tallest, Markup("").join([*heads, *links, *nodes]))

    def _columns(self) -> Mapping[str, list[Node]]:
        """The nodes by kind. Each column is ordered by the middle of its neighbours, so that few lines cross."""
        columns: dict[str, list[Node]] = {}
        for node in self.nodes:
            columns.setdefault(node.kind, []).append(node)
        near: dict[str, list[str]] = {node.id: [] for node in self.nodes}
        for a, b in self.links:
            if a in near and b in near:
                near[a].append(b)
                near[b].append(a)
        for _ in range(_ROUNDS):
            for kind, column in columns.items():
                place = {node.id: n for other in columns.values() for n, node in enumerate(other)}
                middles = {node.id: _middle([place[one] for one in near[node.id]], place[node.id]) for node in column}
                columns[kind] = sorted(column, key=lambda node, by=middles: (by[node.id], node.id))  # type: ignore[misc]
        return columns

    def _link(self, a: str, b: str, at: Mapping[str, tuple[float, float]]) -> Markup:
        (x1, y1), (x2, y2) = sorted((at[a], at[b]))
        bend = (x1 + x2) / 2 if x1 != x2 else x1 + 40
        x1, y1, x2, y2, bend = map(number, (x1, y1, x2, y2, bend))  # type: ignore[assignment]
        d = f"M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"
        return markup.element("path", d=d, class_="link")

    def _node(self, node: Node, at: tuple[float, float], step: float) -> Markup:
        x, y = at
        size = min(9.0, 4 + node.weight**0.5)
        name = fitted(node.id, step - 30)
        circle = markup.element("circle", cx=x, cy=y, r=size, class_="node lost" if node.suspect else "node")
        back = markup.rect(x + 12, y - 9, width_of(name) + 4, 18, "backing")
        said = f"{label(node.kind)} {node.id}\n" + say("{n:count} event{n:s}", n=node.weight)
        return markup.mark(said, back, circle, markup.words(x + 14, y + 4, name, "label"), href=node.href)

    def numbers(self) -> Numbers:
        near: dict[str, list[str]] = {node.id: [] for node in self.nodes}
        for a, b in self.links:
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
        rows = tuple((label(n.kind), n.id, f"{n.weight:,}", ", ".join(sorted(near[n.id])) or "–") for n in self.nodes)
        return Numbers(
            (say("kind of id"), say("id"), label("events"), say("linked with")), rows, (False, False, True, False)
        )


def _middle(places: Sequence[int], otherwise: int) -> float:
    return sum(places) / len(places) if places else otherwise
