"""All questions by name. Each question is a function of the database state and the parameters, with its SQL in a file
beside it.

The command line asks through a `Source`: the database itself (`Local`) or, if another process owns the database, that
process (`api.client.Remote`). Both call this module, so the answers are the same.

To add a question, write a parameter model, a function and its SQL, and add a line to `QUESTIONS`. If the model is an
`OfPast`, the question can be asked about the past. Tables of the past (`projections.past`, chosen by `looking_back`)
then stand in for the live ones. A question about one coupon folds only the events of that coupon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.access.access import Access
from coupon_ledger.questions.access.compiled import check, discreet, restrict
from coupon_ledger.questions.alerts import alerts, recorded, stats
from coupon_ledger.questions.asking import Answer, AsOf, Frames, Question, Source, as_of, cut_of
from coupon_ledger.questions.attribution import attribution
from coupon_ledger.questions.backtest import backtest, behind
from coupon_ledger.questions.changes import changes
from coupon_ledger.questions.customers import customers
from coupon_ledger.questions.experiments import experiments
from coupon_ledger.questions.finance import finance
from coupon_ledger.questions.metrics import metrics
from coupon_ledger.questions.operations import operations
from coupon_ledger.questions.parameters import OfPast, P
from coupon_ledger.questions.states import states, usable

__all__ = ["QUESTIONS", "Answer", "AsOf", "Question", "Source", "answer", "as_of", "cut_of"]


def answer(
    reading: Reading,
    name: str,
    values: Mapping[str, Any],
    progress: Progress = ignore,
    access: Access = Access.FULL,
) -> Answer:
    """Answer the question `name` from the state that `reading` sees, in a transaction that the caller rolls back.
    `values`: the parameters by name. `progress`: called while the past is folded. `access`: what the caller may see.
    Raises `Forbidden`, `WrongQuestion`, and the errors of the question itself."""
    question = QUESTIONS[name]
    check(question, name, access)
    return answer_to(name, question, reading, question.read(name, values), progress, access)


def answer_to(
    name: str,
    question: Question[P],
    reading: Reading,
    parameters: P,
    progress: Progress = ignore,
    access: Access = Access.FULL,
) -> Answer:
    """Like `answer`, for a question with its name, and an instance of its parameter model."""
    with discreet(access, name):
        restrict(reading, question, name, access)
        answered = _answered(question, reading, parameters, progress)
    return replace(answered, frames=discreetly(answered.frames, access, name))


def discreetly(frames: Iterator[pl.DataFrame], access: Access, name: str) -> Iterator[pl.DataFrame]:
    """The same frames. Errors that come while they are read are `discreet`."""
    with discreet(access, name):
        yield from frames


def _answered(question: Question[P], reading: Reading, parameters: P, progress: Progress) -> Answer:
    cut = cut_of_question(question, reading, parameters)
    if cut:
        past = Past(reading, cut, progress)  # from here on, the data's clock is that of the past
        return Answer(as_of(reading), _of_the_past(past, question, parameters))
    return Answer(as_of(reading), frames_of(question, reading, parameters, progress))


def cut_of_question(question: Question[P], reading: Reading, parameters: P) -> Cut:
    """The cut for which past tables must stand in before the question is answered. It is empty (false) if the question
    reads the live tables, or applies its cut itself."""
    if question.stand_in is None or not isinstance(parameters, OfPast):
        return Cut()
    return cut_of(reading, parameters)


def frames_of(
    question: Question[P], reading: Reading, parameters: P, progress: Progress = ignore
) -> Iterator[pl.DataFrame]:
    """The data frames of the answer. If past tables must stand in, they must already do so."""
    ask: Callable[..., Frames] = question.ask
    frames = ask(reading, parameters, progress) if question.folds else ask(reading, parameters)
    return iter([frames]) if isinstance(frames, pl.DataFrame) else frames


def _of_the_past(past: Past, question: Question[P], parameters: P) -> Iterator[pl.DataFrame]:
    try:
        assert question.stand_in is not None
        question.stand_in(past, parameters)
        yield from frames_of(question, past.reading, parameters)
    finally:
        past.close()


QUESTIONS: Final[Mapping[str, Question[Any]]] = {
    "state": Question(states.state, area="coupons"),
    "history": Question(states.history, json=("data",), area="coupons"),
    "coupons": Question(states.coupons, limit_s=300, stand_in=looking_back.coupons, area="coupons"),
    "states": Question(states.states, stand_in=looking_back.coupons, area="coupons"),
    "user": Question(states.user, stand_in=looking_back.user, area="customers"),
    "person": Question(states.person, stand_in=looking_back.person, area="customers"),
    "order": Question(states.order, stand_in=looking_back.order, area="coupons"),
    "campaigns": Question(
        states.campaigns, limit_s=120, stand_in=looking_back.campaigns, area="campaigns", personal="none"
    ),
    "campaign": Question(states.campaign, limit_s=120, stand_in=looking_back.campaign, area="campaigns"),
    "campaign-targets": Question(
        states.campaign_targets, stand_in=looking_back.campaign, area="campaigns", personal="none"
    ),
    "campaign-users": Question(states.campaign_users, limit_s=120, stand_in=looking_back.campaign, area="campaigns"),
    "linked": Question(states.linked, stand_in=looking_back.users, area="customers", personal="none"),
    "campaign-segments": Question(
        states.campaign_segments, limit_s=300, stand_in=looking_back.everything, area="campaigns", personal="none"
    ),
    "campaign-violations": Question(
        states.campaign_violations,
        limit_s=300,
        stand_in=looking_back.campaign_violations,
        area="campaigns",
        personal="none",
    ),
    "violations": Question(states.violations, limit_s=300, stand_in=looking_back.violations, area="coupons"),
    "violation-counts": Question(
        states.violation_counts, stand_in=looking_back.violations, area="coupons", personal="none"
    ),
    "diff": Question(states.diff, limit_s=300, json=("changed",), folds=True, area="coupons"),
    "usable": Question(usable.usable, limit_s=5, area="coupons"),
    "due": Question(states.due, limit_s=300, area="ops", whole=True, personal="shown"),
    "expiries": Question(states.expiries, stand_in=looking_back.expiries, area="coupons", personal="none"),
    "expiring": Question(states.expiring, limit_s=300, area="coupons"),
    "dead-letters": Question(states.dead_letters, limit_s=300, area="ops", whole=True, personal="shown"),
    "dead-letter": Question(states.dead_letter, area="ops", whole=True, personal="shown"),
    "histories": Question(states.histories, area="coupons"),
    "across": Question(states.across, limit_s=300, area="ops", whole=True, personal="shown"),
    "summary": Question(states.summary, area="ops", whole=True, personal="shown"),
    "totals": Question(states.totals, stand_in=looking_back.everything, area="metrics", personal="none"),
    "standing": Question(states.standing, area="ops", whole=True, personal="shown"),
    "log-identity": Question(states.log_identity, area="ops", whole=True, personal="shown"),
    "oddities": Question(states.oddities, area="ops", whole=True, personal="none"),
    "operations": Question(operations.operations, json=("details",), area="ops", whole=True, personal="shown"),
    "digest": Question(states.digest, limit_s=600, area="ops", whole=True, personal="shown"),
    "digest-buckets": Question(states.digest_buckets, limit_s=300, area="ops", whole=True, personal="shown"),
    "digest-rows": Question(states.digest_rows, limit_s=300, area="ops", whole=True, personal="shown"),
    "audit": Question(states.audit, limit_s=600, json=("examples",), area="ops", whole=True, personal="shown"),
    "evidence": Question(states.evidence, limit_s=300, area="ops", whole=True, personal="shown"),
    "customers": Question(customers.customers, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customer-orders": Question(customers.orders, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customer-segments": Question(customers.segments, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customer-tiers": Question(customers.tiers, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customer-clusters": Question(customers.clusters, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customer-drivers": Question(customers.goes_with, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customers-lapsing": Question(customers.lapsing, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "customers-at-use": Question(customers.at_use, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "cohorts": Question(customers.cohorts, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "repurchase": Question(customers.repurchase, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "behaviour": Question(customers.behaviour, limit_s=300, stand_in=looking_back.everything, area="customers"),
    "finance-split": Question(finance.split, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-margin": Question(finance.margin, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-categories": Question(finance.categories, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-budgets": Question(finance.budgets, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-cash": Question(finance.cash, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-losses": Question(finance.losses, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-refunds": Question(finance.refunds, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-doubts": Question(finance.doubts, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "finance-reconciliation": Question(
        finance.reconciliation, limit_s=300, stand_in=looking_back.everything, area="finance"
    ),
    "finance-statement": Question(finance.statement, limit_s=300, stand_in=looking_back.everything, area="finance"),
    "restated": Question(finance.restated, limit_s=300, area="finance"),
    "metrics": Question(metrics.metrics, stand_in=looking_back.metrics, area="metrics", personal="none"),
    "metric-explained": Question(
        metrics.metric_explained, json=("parameters", "rows"), stand_in=looking_back.metrics, area="metrics"
    ),
    "change-explained": Question(changes.change_explained, limit_s=300, folds=True, area="metrics", whole=True),
    "alert-backtest": Question(
        backtest.backtest,
        limit_s=900,
        json=("key", "details"),
        folds=True,
        area="backtest",
        whole=True,
        personal="shown",
    ),
    "alert-backtest-plan": Question(backtest.backtest_plan, limit_s=120, area="backtest", whole=True, personal="shown"),
    "alert-backtest-behind": Question(behind.alerts_behind, limit_s=300, area="backtest", whole=True, personal="shown"),
    "event-span": Question(backtest.event_span, area="ops", whole=True, personal="none"),
    "attribution": Question(
        attribution.attribution,
        limit_s=300,
        stand_in=looking_back.attribution,
        area="attribution",
        whole=True,
        personal="none",
    ),
    "attribution-notes": Question(
        attribution.attribution_notes,
        limit_s=300,
        stand_in=looking_back.attribution,
        area="attribution",
        whole=True,
        personal="none",
    ),
    "attribution-order": Question(
        attribution.attribution_order,
        limit_s=300,
        stand_in=looking_back.attribution,
        area="attribution",
        whole=True,
    ),
    "attribution-roi": Question(
        attribution.attribution_roi,
        limit_s=300,
        stand_in=looking_back.attribution,
        area="attribution",
        whole=True,
        personal="none",
    ),
    "experiments": Question(experiments.experiments, stand_in=looking_back.experiments, area="experiments", whole=True),
    "experiment": Question(
        experiments.experiment, limit_s=120, stand_in=looking_back.experiment, area="experiments", whole=True
    ),
    "experiment-people": Question(
        experiments.experiment_people, limit_s=120, stand_in=looking_back.experiment, area="experiments", whole=True
    ),
    "experiment-comparison": Question(
        experiments.comparison, limit_s=120, stand_in=looking_back.experiment, area="experiments", whole=True
    ),
    "experiment-plan": Question(
        experiments.experiment_plan, limit_s=120, stand_in=looking_back.experiments, area="experiments", whole=True
    ),
    "experiment-begun": Question(experiments.begun, area="experiments", whole=True),
    "experiment-candidates": Question(experiments.candidates, limit_s=120, area="experiments", whole=True),
    "alerts": Question(
        alerts.alerts, json=("key",), stand_in=looking_back.alerts, area="alerts", whole=True, personal="shown"
    ),
    "alert-groups": Question(
        alerts.alert_groups, stand_in=looking_back.alerts, area="alerts", whole=True, personal="shown"
    ),
    "alert": Question(
        alerts.alert,
        limit_s=120,
        json=("key", "evidence", "content"),
        stand_in=looking_back.alert,
        area="alerts",
        whole=True,
        personal="shown",
    ),
    "alert-history": Question(
        alerts.alert_history,
        json=("details",),
        stand_in=looking_back.alerts,
        area="alerts",
        whole=True,
        personal="shown",
    ),
    "alert-events": Question(recorded.alert_events, area="alerts", whole=True, personal="none"),
    "alert-silences": Question(
        alerts.alert_silences, stand_in=looking_back.alerts, area="alerts", whole=True, personal="shown"
    ),
    "alert-rules": Question(alerts.alert_rules, json=("content",), area="alerts", whole=True, personal="shown"),
    "alert-stats": Question(
        stats.alert_stats, stand_in=looking_back.alerts, area="alerts", whole=True, personal="shown"
    ),
}
