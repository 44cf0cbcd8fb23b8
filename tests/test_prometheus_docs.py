"""The alerting rules, the Grafana board and docs/prometheus.md fit the metrics that a running consumer serves. Else a
renamed metric would leave an alert that never fires, and a panel without data, and nobody would notice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from coupon_ledger.api.present import ALERTS, FAULTS
from coupon_ledger.delivery.queue import DEAD_AFTER
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts.rules import SEVERITIES
from tests.command_line import coupon_event, done, ndjson, opened_log, wait_until
from tests.owners import Data, owning
from tests.promql import PromqlError, read
from tests.test_cli import POISON

pytestmark = pytest.mark.long

DOCS: Final = Path(__file__).parent.parent / "docs"
RULES: Final = [
    rule
    for group in yaml.safe_load((DOCS / "prometheus" / "alerting-rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
BOARD: Final[Data] = json.loads((DOCS / "prometheus" / "grafana-board.json").read_text(encoding="utf-8"))
PANELS: Final[list[Data]] = BOARD["panels"]
SHOWN: Final = [panel for panel in PANELS if panel["type"] != "row"]
TEXT: Final = (DOCS / "prometheus.md").read_text(encoding="utf-8")
DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
OF_PROMETHEUS: Final = {"up": {"job", "instance"}}
"""Series that Prometheus makes itself."""
ADDED: Final = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and the expression with Grafana's variables put in."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in SHOWN:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".+")


EXPRESSIONS: Final = list(expressions())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The series that an owner serves after it has read an old event, a conflict and a broken record, each with its
    labels."""
    folder = tmp_path_factory.mktemp("served")
    log, database = f"sqlite:///{folder / 'log.db'}", folder / "ledger.duckdb"
    done("init", "--log", log, "--database", database)
    events = [
        coupon_event("created", "e-1", occurred_at="2001-11-11T00:00:00Z"),
        coupon_event("created", "e-1", coupon_type="gift"),
    ]
    done("publish", "-", "--log", log, stdin=ndjson(events))
    opened = opened_log(folder / "log.db")
    opened.append([Record(COUPON, b"c-9", POISON)])
    opened.close()
    with owning("--alerts", "--log", log, database=database) as owner:

        def text() -> str:
            return owner.get("/metrics").body.decode()

        wait_until(lambda: "coupon_ledger_records_total{" in text() and "coupon_ledger_alerts" in text(), "a commit")
        assert owner.answer("summary")["rows"]
        families = list(text_string_to_metric_families(text()))
    series: dict[str, set[str]] = {name: set(labels) for name, (_, labels) in (FAULTS | ALERTS).items()}
    missing = series.keys() - {family.name for family in families}
    assert not missing, "an owner does not serve what the collector describes"
    for family in families:
        if not family.samples:
            series.setdefault(family.name + "_total" * (family.type == "counter"), set())
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def families_of(series: dict[str, set[str]]) -> set[str]:
    """The names of our metrics, those of histograms without the endings of their series."""
    histograms = {name.removesuffix("_bucket") for name in series if name.endswith("_bucket")}
    parts = {name + end for name in histograms for end in ("_bucket", "_sum", "_count")}
    return {name for name in (series.keys() - parts) | histograms if name.startswith("coupon_ledger_")}


# --- expressions


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_an_expression_asks_for_what_is_served(where: str, expression: str, served: dict[str, set[str]]) -> None:
    """Else the alert never fires, or the panel says that there is no data."""
    asked = read(expression)
    known = served | OF_PROMETHEUS
    assert asked.selected, where
    assert [name for name, _ in asked.selected if name not in known] == []
    for name, labels in asked.selected:
        assert set(labels) <= known[name] | ADDED, name
    assert asked.labels <= set().union(ADDED, *(known[name] for name, _ in asked.selected))


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "sum(a",
        "sum(a))",
        'a{b="c}',
        'a{b="c" d="e"}',
        "a{b}",
        "rate(a)",
        "rate(a[5m)",
        "rate(a[5])",
        "delta(sum(a)[5m])",
        "a[5m]",
        "a[5m] > 1",
        "a >",
        "a and 1",
        "nothing(a)",
        "clamp_min(a)",
        "sum by job (a)",
        "a and on job b",
        "a $ b",
        "a b",
    ],
)
def test_the_reader_refuses_what_prometheus_refuses(expression: str) -> None:
    """Else the test above could not fail."""
    with pytest.raises(PromqlError):
        read(expression)


def test_the_reader_names_metrics_and_labels() -> None:
    asked = read('sum by (x) (rate(a{l="m, }", k!~"n"}[1h30m])) / on (x) b > 2 * time() or absent(c)')
    assert asked.selected == [("a", ("l", "k")), ("b", ()), ("c", ())]
    assert asked.labels == {"x"}


# --- alerting rules


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alerting_rule_is_whole(rule: Data) -> None:
    """Else whoever is woken does not know what it is, or the alert goes nowhere."""
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smhd]", str(rule["for"]))
    assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description"}
    for text in rule["annotations"].values():
        assert text.strip() and text.count("{{") == text.count("}}")
        assert re.sub(r"\{\{ \$(value|labels\.\w+)( \| humanize\w*)? \}\}", "", text).count("{") == 0
    row = re.search(rf"^\| `{rule['alert']}` \| (\w+) \|", TEXT, re.MULTILINE)
    assert row and row[1] == rule["labels"]["severity"], "the document lists it otherwise, or not at all"


def test_every_alerting_rule_has_its_name_and_says_why() -> None:
    """Else nobody can tell whether a threshold may be changed."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    text = (DOCS / "prometheus" / "alerting-rules.yml").read_text(encoding="utf-8")
    assert len(re.findall(r"^ +# .+\n +- alert: ", text, re.MULTILINE)) == len(names)
    assert set(re.findall(r"^\| `(CouponLedger\w+)`", TEXT, re.MULTILINE)) == set(names)


def test_a_channel_is_dead_when_the_ledger_says_so() -> None:
    """Else the ledger and Prometheus contradict each other."""
    [rule] = [rule for rule in RULES if rule["alert"] == "CouponLedgerChannelDead"]
    assert rule["expr"].endswith(f">= {DEAD_AFTER}")
    assert any(f"coupon_ledger_channel_failures{{}} >= {DEAD_AFTER}" in _bare(panel) for panel in SHOWN)


def _bare(panel: Data) -> str:
    return re.sub(r"\{[^}]*\}", "{}", " ".join(target["expr"] for target in panel["targets"]))


# --- the board


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_is_whole(panel: Data) -> None:
    """Else it shows bare numbers, or works only where it was drawn."""
    defaults: dict[str, Any] = panel["fieldConfig"]["defaults"]
    assert panel["type"] in ("stat", "timeseries")
    assert panel["title"].strip() and panel["description"].strip()
    assert defaults["unit"] in ("s", "short", "bytes", "cps")
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert panel["datasource"] == DATA_SOURCE
    assert panel["targets"] and all(target["datasource"] == DATA_SOURCE for target in panel["targets"])
    assert all(target["legendFormat"] for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_every_legend_names_a_label_that_its_series_keep() -> None:
    """Else lines have empty names."""
    for panel in SHOWN:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = read(target["expr"].replace("$__rate_interval", "1m")).labels
            aggregated = re.search(r"\b(sum|max|min|count|histogram_quantile)\b", target["expr"])
            assert named <= (kept - {"le"} if aggregated else ADDED), panel["title"]


def test_panels_have_their_ids_and_do_not_overlap() -> None:
    """Else Grafana moves them about, or shows one for another."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24 and at["w"] > 0 and at["h"] > 0 and at["y"] >= 0
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_the_board_works_with_any_data_source(served: dict[str, set[str]]) -> None:
    """Else it could be imported only where its data source has the same name."""
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert variables["instance"]["datasource"] == DATA_SOURCE
    found = re.fullmatch(r"label_values\((\w+), instance\)", variables["instance"]["definition"])
    assert found and found[1] in served
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD)))
    assert used == {"datasource", "instance", "__rate_interval", "__all"}
    assert BOARD["uid"] and BOARD["title"] and "id" not in BOARD
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == [
        "Consuming",
        "Alerts",
        "Violations",
        "Delivery",
    ]


# --- the document


def test_every_metric_is_shown_or_told_of(served: dict[str, set[str]]) -> None:
    """Else a metric is scraped that nobody can read."""
    ours = families_of(served)
    assert len(ours) >= 20
    listed = dict(re.findall(r"^\| `(coupon_ledger_\w+)` \| ([^|]*)\|", TEXT, re.MULTILINE))
    assert set(listed) == ours, "the table of the document is not what is served"
    for name, labels in listed.items():
        told = set(filter(None, re.split(r",\s*", labels.strip())))
        assert told == served.get(name, served.get(f"{name}_bucket", set()) - {"le"}), name
    shown = {
        name
        for panel in SHOWN
        for target in panel["targets"]
        for name in re.findall(r"coupon_ledger_\w+", target["expr"])
    }
    hidden = {name for name in ours if not {name, f"{name}_bucket", f"{name}_sum"} & shown}
    told_hidden = set(re.findall(r"^\| `(\w+)` .*not on the board", TEXT, re.MULTILINE))
    assert hidden == told_hidden, "what is not on the board is said to be so"
