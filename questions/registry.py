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
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.alerts import alerts, recorded, stats
from coupon_ledger.questions.asking import Answer, AsOf, Frames, Question, Source, as_of, cut_of
from coupon_ledger.questions.attribution import attribution
from coupon_ledger.questions.backtest import backtest, behind
from coupon_ledger.questions.customers import customers
from coupon_ledger.questions.experiments import experiments
from coupon_ledger.questions.finance import finance
from coupon_ledger.questions.metrics import metrics
from coupon_ledger.questions.operations import operations
from coupon_ledger.questions.parameters import OfPast, P
from coupon_ledger.questions.states import states, usable

__all__ = ["QUESTIONS", "Answer", "AsOf", "Question", "Source", "answer", "as_of", "cut_of"]


def answer(reading: Reading, name: str, values: Mapping[str, Any], progress: Progress = ignore) -> Answer:
    """Answer the question `name` from the state that `reading` sees, in a transaction that the caller rolls back.
    `values`: the parameters by name. `progress`: called while the past is folded. Raises `WrongQuestion`, and the
    errors of the question itself."""
    question = QUESTIONS[name]
    return answer_to(question, reading, question.read(name, values), progress)


def answer_to(question: Question[P], reading: Reading, parameters: P, progress: Progress = ignore) -> Answer:
    """Like `answer`, for a question and an instance of its parameter model."""
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
    "state": Question(states.state),
    "history": Question(states.history, json=("data",)),
    "coupons": Question(states.coupons, limit_s=300, stand_in=looking_back.coupons),
    "states": Question(states.states, stand_in=looking_back.coupons),
    "user": Question(states.user, stand_in=looking_back.user),
    "person": Question(states.person, stand_in=looking_back.person),
    "order": Question(states.order, stand_in=looking_back.order),
    "campaigns": Question(states.campaigns, limit_s=120, stand_in=looking_back.campaigns),
    "campaign": Question(states.campaign, limit_s=120, stand_in=looking_back.campaign),
    "campaign-targets": Question(states.campaign_targets, stand_in=looking_back.campaign),
    "campaign-users": Question(states.campaign_users, limit_s=120, stand_in=looking_back.campaign),
    "linked": Question(states.linked, stand_in=looking_back.users),
    "campaign-segments": Question(states.campaign_segments, limit_s=300, stand_in=looking_back.everything),
    "campaign-violations": Question(states.campaign_violations, limit_s=300, stand_in=looking_back.campaign_violations),
    "violations": Question(states.violations, limit_s=300, stand_in=looking_back.violations),
    "violation-counts": Question(states.violation_counts, stand_in=looking_back.violations),
    "diff": Question(states.diff, limit_s=300, json=("changed",), folds=True),
    "usable": Question(usable.usable),
    "due": Question(states.due, limit_s=300),
    "expiries": Question(states.expiries, stand_in=looking_back.expiries),
    "expiring": Question(states.expiring, limit_s=300),
    "dead-letters": Question(states.dead_letters, limit_s=300),
    "dead-letter": Question(states.dead_letter),
    "histories": Question(states.histories),
    "across": Question(states.across, limit_s=300),
    "summary": Question(states.summary),
    "totals": Question(states.totals, stand_in=looking_back.everything),
    "standing": Question(states.standing),
    "log-identity": Question(states.log_identity),
    "oddities": Question(states.oddities),
    "digest": Question(states.digest, limit_s=600),
    "digest-buckets": Question(states.digest_buckets, limit_s=300),
    "digest-rows": Question(states.digest_rows, limit_s=300),
    "audit": Question(states.audit, limit_s=600, json=("examples",)),
    "evidence": Question(states.evidence, limit_s=300),
    "customers": Question(customers.customers, limit_s=300, stand_in=looking_back.everything),
    "customer-orders": Question(customers.orders, limit_s=300, stand_in=looking_back.everything),
    "customer-segments": Question(customers.segments, limit_s=300, stand_in=looking_back.everything),
    "customer-tiers": Question(customers.tiers, limit_s=300, stand_in=looking_back.everything),
    "customer-clusters": Question(customers.clusters, limit_s=300, stand_in=looking_back.everything),
    "customer-drivers": Question(customers.goes_with, limit_s=300, stand_in=looking_back.everything),
    "customers-lapsing": Question(customers.lapsing, limit_s=300, stand_in=looking_back.everything),
    "customers-at-use": Question(customers.at_use, limit_s=300, stand_in=looking_back.everything),
    "cohorts": Question(customers.cohorts, limit_s=300, stand_in=looking_back.everything),
    "repurchase": Question(customers.repurchase, limit_s=300, stand_in=looking_back.everything),
    "behaviour": Question(customers.behaviour, limit_s=300, stand_in=looking_back.everything),
    "finance-split": Question(finance.split, limit_s=300, stand_in=looking_back.everything),
    "finance-margin": Question(finance.margin, limit_s=300, stand_in=looking_back.everything),
    "finance-categories": Question(finance.categories, limit_s=300, stand_in=looking_back.everything),
    "finance-budgets": Question(finance.budgets, limit_s=300, stand_in=looking_back.everything),
    "finance-cash": Question(finance.cash, limit_s=300, stand_in=looking_back.everything),
    "finance-losses": Question(finance.losses, limit_s=300, stand_in=looking_back.everything),
    "finance-refunds": Question(finance.refunds, limit_s=300, stand_in=looking_back.everything),
    "finance-doubts": Question(finance.doubts, limit_s=300, stand_in=looking_back.everything),
    "finance-reconciliation": Question(finance.reconciliation, limit_s=300, stand_in=looking_back.everything),
    "finance-statement": Question(finance.statement, limit_s=300, stand_in=looking_back.everything),
    "restated": Question(finance.restated, limit_s=300),
    "metrics": Question(metrics.metrics, stand_in=looking_back.metrics),
    "metric-explained": Question(metrics.metric_explained, json=("parameters", "rows"), stand_in=looking_back.metrics),
    "alert-backtest": Question(backtest.backtest, limit_s=900, json=("key", "details"), folds=True),
    "alert-backtest-plan": Question(backtest.backtest_plan, limit_s=120),
    "alert-backtest-behind": Question(behind.alerts_behind, limit_s=300),
    "event-span": Question(backtest.event_span),
    "attribution": Question(attribution.attribution, limit_s=300, stand_in=looking_back.attribution),
    "attribution-notes": Question(attribution.attribution_notes, limit_s=300, stand_in=looking_back.attribution),
    "attribution-order": Question(attribution.attribution_order, limit_s=300, stand_in=looking_back.attribution),
    "attribution-roi": Question(attribution.attribution_roi, limit_s=300, stand_in=looking_back.attribution),
    "experiments": Question(experiments.experiments, stand_in=looking_back.experiments),
    "experiment": Question(experiments.experiment, limit_s=120, stand_in=looking_back.experiment),
    "experiment-people": Question(experiments.experiment_people, limit_s=120, stand_in=looking_back.experiment),
    "experiment-comparison": Question(experiments.comparison, limit_s=120, stand_in=looking_back.experiment),
    "experiment-plan": Question(experiments.experiment_plan, limit_s=120, stand_in=looking_back.experiments),
    "experiment-begun": Question(experiments.begun),
    "experiment-candidates": Question(experiments.candidates, limit_s=120),
    "alerts": Question(alerts.alerts, json=("key",), stand_in=looking_back.alerts),
    "alert-groups": Question(alerts.alert_groups, stand_in=looking_back.alerts),
    "alert": Question(alerts.alert, limit_s=120, json=("key", "evidence", "content"), stand_in=looking_back.alert),
    "alert-history": Question(alerts.alert_history, json=("details",), stand_in=looking_back.alerts),
    "alert-events": Question(recorded.alert_events),
    "alert-silences": Question(alerts.alert_silences, stand_in=looking_back.alerts),
    "alert-rules": Question(alerts.alert_rules, json=("content",)),
    "operations": Question(operations.operations, json=("details",)),
    "alert-stats": Question(stats.alert_stats, stand_in=looking_back.alerts),
}
