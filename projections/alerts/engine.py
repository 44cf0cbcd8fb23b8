"""Evaluates the rules in force on released events, and writes their episodes.

    put_in_force(store, rules)    # once, and whenever the rules change
    release(store, until)         # in the transaction of each batch, once its positions are stored

Always true: the table `alert_episodes` is a function of the log up to what is released, and of `alert_rules`. It does
not depend on batches, restarts or rebuilds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER
from coupon_ledger.projections.alerts import episodes, in_force
from coupon_ledger.projections.alerts.buckets import TABLES, save
from coupon_ledger.projections.alerts.budget_rules import BudgetRules
from coupon_ledger.projections.alerts.campaigns import Campaigns
from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF, EPOCH, Released, instant, micros, released
from coupon_ledger.projections.alerts.concentration import ConcentrationRules
from coupon_ledger.projections.alerts.episodes import Episodes, micros_of
from coupon_ledger.projections.alerts.evaluator import Evaluator
from coupon_ledger.projections.alerts.in_force import InForce
from coupon_ledger.projections.alerts.linked import LinkedRules
from coupon_ledger.projections.alerts.measures import MEASURES
from coupon_ledger.projections.alerts.metric_rules import MetricRules
from coupon_ledger.projections.alerts.rules import (
    STREAMED,
    Budget,
    Concentration,
    Linked,
    Metric,
    Rule,
    Stock,
    Threshold,
    Velocity,
)
from coupon_ledger.projections.alerts.threshold_rules import ThresholdRules
from coupon_ledger.projections.alerts.velocity import VelocityRules
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.kept_table import Batch
from coupon_ledger.projections.store import Cache, Store

_TOPICS: Final = (COUPON, ORDER)


_OF_COUPONS: Final[tuple[tuple[tuple[type[Any], ...], Callable[[list[tuple[Rule, Episodes]]], Evaluator]], ...]] = (
    ((Velocity,), VelocityRules),
    ((Concentration,), ConcentrationRules),
    ((Linked,), LinkedRules),
    ((Budget, Stock), BudgetRules),
)
"""The evaluators of coupon events, each with the kinds of its rules. Metrics are on both topics."""


class Engine(Cache):
    """The state in memory that evaluation needs: everything in it can be made again from the tables."""

    def __init__(self) -> None:
        self.campaigns = Campaigns.asking()  # the journal may hold events that are not evaluated yet
        self.newest = EPOCH
        """The latest `recorded_at` in the batches that were noted."""
        self._topics: dict[str, TopicEngine] | None = None

    def rolled_back(self) -> None:
        self._topics = None
        self.campaigns.forget(complete=False)

    def forget(self) -> None:
        """Make the state again before the next evaluation, since rules have changed."""
        self._topics = None

    def topics(self, store: Store) -> dict[str, TopicEngine]:
        if self._topics is None:
            progress = _progress(store)
            rules = in_force.stored(store)
            self._topics = {topic: TopicEngine(store, topic, rules, *progress[topic]) for topic in _TOPICS}
        return self._topics


class TopicEngine:
    """Evaluates the rules on one topic. `after`: events recorded up to this instant are evaluated. `clock`: the topic's
    clock then, in microseconds; None before the first event."""

    def __init__(
        self,
        reading: Reading,
        topic: str,
        rules: list[InForce],
        after: datetime,
        clock: int | None,
        *,
        new: bool = False,
    ) -> None:
        """`new`: begin without what is stored, as for a backtest."""
        self.topic = topic
        self.after = after
        self.clock = clock
        self._rules = [f for f in rules if topic in topics_of(f.rule)]
        self._active = [f for f in self._rules if f.judges(after)]
        self._episodes = [Episodes(f.rule, topic, grain_of(f.rule)) for f in self._active]
        self._evaluators = self._made()
        if not new:
            self._restore(reading)

    def _made(self) -> list[Evaluator]:
        rules = [(f.rule, e) for f, e in zip(self._active, self._episodes, strict=True)]
        evaluators: list[Evaluator] = [MetricRules(self.topic, rules), ThresholdRules(self.topic, rules)]
        if self.topic == COUPON:
            for kinds, evaluator in _OF_COUPONS:
                evaluators.append(evaluator([(rule, e) for rule, e in rules if isinstance(rule.expr, kinds)]))
        return evaluators

    @property
    def idle(self) -> bool:
        """Whether no rule is in force or comes into force later."""
        return not self._rules

    @property
    def columns(self) -> list[str]:
        return sorted({column for evaluator in self._evaluators for column in evaluator.columns})

    @property
    def next_change(self) -> datetime | None:
        """The next instant of recording at which other rules come into force."""
        edges = [edge for f in self._rules for edge in (f.since, f.until) if edge is not None and edge > self.after]
        return min(edges, default=None)

    def _restore(self, reading: Reading) -> None:
        rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in episodes.stored_open(reading):
            rows.setdefault((row["rule"], row["rule_version"]), []).append(row)
        for one in self._episodes:
            one.restore(rows.get((one.rule.name, one.rule.version), ()))
        for evaluator in self._evaluators:
            evaluator.restore(reading, self.clock)
        self._warm_up(reading)

    def _warm_up(self, reading: Reading) -> None:
        longest = max(evaluator.longest for evaluator in self._evaluators)
        if self.clock is None or not longest:
            return
        # An event that is younger was also recorded later.
        since = instant(self.clock - 2 * longest)
        for piece in released(reading, self.topic, since, self.after, self.columns, None):
            piece = self.with_campaigns(reading, piece, Campaigns.asking())
            for evaluator in self._evaluators:
                evaluator.warm_up(piece)

    def with_campaigns(self, reading: Reading, piece: Released, campaigns: Campaigns) -> Released:
        """The piece, with the campaign of each event if a rule needs it."""
        if self.topic == COUPON and CAMPAIGN_OF in self.columns:
            piece.events = campaigns.resolve(reading, piece.events)
        return piece

    def see(self, reading: Reading, piece: Released) -> None:
        for evaluator in self._evaluators:
            evaluator.see(reading, piece)
        for episodes_of_rule in self._episodes:
            episodes_of_rule.advance(int(piece.clock[-1]))
        self.clock = int(piece.clock[-1])

    def end_rules(self, store: Store) -> None:
        """Close the episodes of the rules that are no longer in force."""
        for f in self._active:
            if f.until == self.after:
                episodes.end(store, [(f.rule.name, f.rule.version)])

    def save(self, store: Store) -> None:
        save(store, [buckets for evaluator in self._evaluators for buckets in evaluator.buckets])

    def changed(self) -> Iterator[tuple[list[dict[str, object]], set[str]]]:
        return (one.changed() for one in self._episodes)


def topics_of(rule: Rule) -> tuple[str, ...]:
    """The topics whose events a streamed rule judges; empty for a rule on the tables."""
    expr = rule.expr
    if isinstance(expr, Metric | Threshold):
        return (MEASURES[expr.metric].topic,)
    return (COUPON,) if expr.kind in STREAMED else ()


def grain_of(rule: Rule) -> int:
    """What is added to the time for which a rule keeps firing, in microseconds: the time between two evaluations of a
    rule that is judged bucket by bucket."""
    if isinstance(rule.expr, Metric):
        return micros_of(rule.expr.bucket)
    return micros_of(rule.every) if isinstance(rule.expr, Threshold | Budget | Stock) else 0


def settle(store: Store, batch: Batch) -> None:
    """Note what a later release needs of a batch's former rows."""
    engine = store.cache(Engine)
    coupons = batch.changes.get(COUPON)
    if coupons is None:
        return
    engine.campaigns.note(coupons)
    recorded = pl.concat([e["recorded_at"] for e in coupons.journalled]) if coupons.journalled else pl.Series()
    newest = recorded.max()
    if isinstance(newest, datetime):
        engine.newest = max(engine.newest, newest)


def release(store: Store, complete: Mapping[str, datetime]) -> None:
    """Evaluate all events up to which their topics are complete, inside the caller's transaction. `complete`: by topic,
    the instant (naive UTC) up to which it is complete."""
    engine = store.cache(Engine)
    for topic, of_topic in engine.topics(store).items():
        if of_topic.idle:
            if topic == COUPON:  # should rules come into force, they judge events that nobody has noted
                engine.campaigns.forget(complete=False)
            continue
        # What coupons are judged by, their campaigns' terms, must be known too.
        until = complete.get(topic, EPOCH)
        if topic == COUPON:
            until = min(until, complete.get(CAMPAIGN, until))
        while of_topic.after < until:
            change = of_topic.next_change
            upto = until if change is None else min(until, change)
            _release(store, engine, of_topic, upto)
            if upto == change:
                _save(store, of_topic)
                of_topic.end_rules(store)
                engine.forget()
                of_topic = engine.topics(store)[topic]
        _save(store, of_topic)


def take_over(store: Store, rules: Iterable[Mapping[str, Any]], released: Iterable[Mapping[str, Any]]) -> None:
    """Evaluate the same rules as another database, and as far as it has. The store must have folded the same records.

    `rules`, `released`: the columns `alert_rules` and `alerts_until` of the other database's answer to `standing`.
    """
    with store.transaction():
        follow_rules(store, rules)
        release(store, {row["topic"]: instant(row["until"]) for row in released})


def evaluate_again(store: Store) -> None:
    """Evaluate everything again that is evaluated, inside the caller's transaction. For events that were folded at
    positions long past, as when dead letters are replayed. Takes as long as a backtest of all rules."""
    if not in_force.stored(store):
        return
    reached = {topic: until for topic, (until, _) in _progress(store).items()}
    for table in (episodes.TABLE, "alert_progress", *TABLES):
        store.execute(f"DELETE FROM {table}")
    store.cache(Engine).forget()
    release(store, reached)


def follow_rules(store: Store, rules: Iterable[Mapping[str, Any]]) -> None:
    """Put the rules of another database in force as they are there, inside the caller's transaction."""
    in_force.take_over(store, rules)
    store.cache(Engine).forget()


def _release(store: Store, engine: Engine, of_topic: TopicEngine, until: datetime) -> None:
    campaigns = engine.campaigns
    for piece in released(store, of_topic.topic, of_topic.after, until, of_topic.columns, of_topic.clock):
        of_topic.see(store, of_topic.with_campaigns(store, piece, campaigns))
        campaigns = Campaigns.asking()  # what was noted is from before the first piece
    of_topic.after = until
    if of_topic.topic == COUPON:
        engine.campaigns.forget(complete=until >= engine.newest)


def _save(store: Store, of_topic: TopicEngine) -> None:
    episodes.write(store, of_topic.changed())
    of_topic.save(store)
    store.execute("DELETE FROM alert_progress WHERE topic = $topic", {"topic": of_topic.topic})
    if of_topic.clock is not None:
        store.execute(
            "INSERT INTO alert_progress VALUES ($topic, $until, $clock)",
            {"topic": of_topic.topic, "until": of_topic.after, "clock": instant(of_topic.clock)},
        )


def _progress(store: Reading) -> dict[str, tuple[datetime, int | None]]:
    stored = {
        topic: (until, micros(clock))
        for topic, until, clock in store.rows("SELECT topic, released_until, clock FROM alert_progress")
    }
    return {topic: stored.get(topic, (EPOCH, None)) for topic in _TOPICS}
