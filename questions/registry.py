"""All questions to the live tables: each is a function, with its SQL in a file beside it and bound parameters.

`QUESTIONS` lists them by name, from `questions.states` and the packages for metrics, finance, customers, attribution
and experiments. The command line asks through a `Source`: the database itself (`Local`) or, if another process owns it,
that process (`api.client.Remote`). Both come here, so the answers are the same. To add a question, write a function and
its SQL, and add a line to `QUESTIONS`. `at`, `known_at` (LIFECYCLE section 5) and `positions` (of the log) ask about
the past. A question about one coupon then folds only that coupon's events in the cut; all others read tables of the
past (`projections.past`, chosen by `looking_back`) that stand in for the live ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import polars as pl

from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.past import Cut, Past, Progress
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.asking import PAST, Answer, AsOf, Question, Source, as_of, cut_of
from coupon_ledger.questions.attribution import attribution as attributed
from coupon_ledger.questions.customers import customers
from coupon_ledger.questions.experiments import experiments
from coupon_ledger.questions.finance import finance
from coupon_ledger.questions.metrics import metrics as of_metrics
from coupon_ledger.questions.states import states as questions

__all__ = ["QUESTIONS", "Answer", "AsOf", "Question", "Source", "answer", "as_of", "cut_of"]


def answer(
    reading: Reading, question: str, parameters: Mapping[str, Any], told: Progress = lambda _done, _left: None
) -> Answer:
    """Answer the question from the state that `reading` sees, in a transaction that the caller rolls back."""
    asked = QUESTIONS[question]
    given = asked.checked(parameters)
    cut = cut_of(reading, given) if asked.then is not None else Cut()
    frames = _of_the_past(Past(reading, cut, told), asked, given) if cut else frames_of(asked, reading, given, told)
    return Answer(as_of(reading), frames)


def frames_of(
    asked: Question, reading: Reading, given: Mapping[str, Any], told: Progress = lambda _done, _left: None
) -> Iterator[pl.DataFrame]:
    """The frames of the answer. Tables of the past, if any, are already in place."""
    if asked.then is not None:
        given = {name: value for name, value in given.items() if name not in PAST}
    found = asked.ask(reading, **given, **({"told": told} if asked.tells else {}))
    return iter([found]) if isinstance(found, pl.DataFrame) else found


def _of_the_past(past: Past, asked: Question, given: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
    try:
        assert asked.then is not None
        asked.then(past, given)
        yield from frames_of(asked, past.reading, given)
    finally:
        past.close()


QUESTIONS: Final[Mapping[str, Question]] = {
    "state": Question(questions.state),
    "history": Question(questions.history, json=("data",)),
    "coupons": Question(questions.coupons, limit_s=300, then=looking_back.coupons),
    "states": Question(questions.states, then=looking_back.coupons),
    "user": Question(questions.user, then=looking_back.user),
    "person": Question(questions.person, then=looking_back.person),
    "order": Question(questions.order, then=looking_back.order),
    "campaigns": Question(questions.campaigns, limit_s=120, then=looking_back.campaigns),
    "campaign": Question(questions.campaign, limit_s=120, then=looking_back.campaign),
    "campaign-targets": Question(questions.campaign_targets, then=looking_back.campaign),
    "campaign-users": Question(questions.campaign_users, limit_s=120, then=looking_back.campaign),
    "linked": Question(questions.linked, then=looking_back.users),
    "campaign-segments": Question(questions.campaign_segments, limit_s=300, then=looking_back.everything),
    "campaign-violations": Question(questions.campaign_violations, limit_s=300, then=looking_back.campaign_violations),
    "violations": Question(questions.violations, limit_s=300, then=looking_back.violations),
    "violation-counts": Question(questions.violation_counts, then=looking_back.violations),
    "diff": Question(questions.diff, limit_s=300, json=("changed",), tells=True),
    "due": Question(questions.due, limit_s=300),
    "expiries": Question(questions.expiries, then=looking_back.expiries),
    "expiring": Question(questions.expiring, limit_s=300),
    "dead-letters": Question(questions.dead_letters, limit_s=300),
    "dead-letter": Question(questions.dead_letter),
    "histories": Question(questions.histories),
    "across": Question(questions.across, limit_s=300),
    "summary": Question(questions.summary),
    "totals": Question(questions.totals, then=looking_back.everything),
    "standing": Question(questions.standing),
    "log-identity": Question(questions.log_identity),
    "oddities": Question(questions.oddities),
    "digest": Question(questions.digest, limit_s=600),
    "digest-buckets": Question(questions.digest_buckets, limit_s=300),
    "digest-rows": Question(questions.digest_rows, limit_s=300),
    "audit": Question(questions.audit, limit_s=600, json=("examples",)),
    "evidence": Question(questions.evidence, limit_s=300),
    "customers": Question(customers.customers, limit_s=300, then=looking_back.everything),
    "customer-orders": Question(customers.orders, limit_s=300, then=looking_back.everything),
    "customer-segments": Question(customers.segments, limit_s=300, then=looking_back.everything),
    "customer-tiers": Question(customers.tiers, limit_s=300, then=looking_back.everything),
    "customer-clusters": Question(customers.clusters, limit_s=300, then=looking_back.everything),
    "customer-drivers": Question(customers.goes_with, limit_s=300, then=looking_back.everything),
    "customers-lapsing": Question(customers.lapsing, limit_s=300, then=looking_back.everything),
    "customers-at-use": Question(customers.at_use, limit_s=300, then=looking_back.everything),
    "cohorts": Question(customers.cohorts, limit_s=300, then=looking_back.everything),
    "repurchase": Question(customers.repurchase, limit_s=300, then=looking_back.everything),
    "behaviour": Question(customers.behaviour, limit_s=300, then=looking_back.everything),
    "finance-split": Question(finance.split, limit_s=300, then=looking_back.everything),
    "finance-margin": Question(finance.margin, limit_s=300, then=looking_back.everything),
    "finance-categories": Question(finance.categories, limit_s=300, then=looking_back.everything),
    "finance-budgets": Question(finance.budgets, limit_s=300, then=looking_back.everything),
    "finance-cash": Question(finance.cash, limit_s=300, then=looking_back.everything),
    "finance-losses": Question(finance.losses, limit_s=300, then=looking_back.everything),
    "finance-refunds": Question(finance.refunds, limit_s=300, then=looking_back.everything),
    "finance-doubts": Question(finance.doubts, limit_s=300, then=looking_back.everything),
    "finance-reconciliation": Question(finance.reconciliation, limit_s=300, then=looking_back.everything),
    "finance-statement": Question(finance.statement, limit_s=300, then=looking_back.everything),
    "restated": Question(finance.restated, limit_s=300),
    "metrics": Question(of_metrics.metrics, then=looking_back.metrics),
    "metric-explained": Question(of_metrics.metric_explained, json=("parameters", "rows"), then=looking_back.metrics),
    "attribution": Question(attributed.attribution, limit_s=300, then=attributed.then),
    "attribution-notes": Question(attributed.attribution_notes, limit_s=300, then=attributed.then),
    "attribution-order": Question(attributed.attribution_order, limit_s=300, then=attributed.then),
    "attribution-roi": Question(attributed.attribution_roi, limit_s=300, then=attributed.then),
    "experiments": Question(experiments.experiments, then=looking_back.experiment),
    "experiment": Question(experiments.experiment, limit_s=120, then=looking_back.experiment),
    "experiment-people": Question(experiments.experiment_people, limit_s=120, then=looking_back.experiment),
    "experiment-comparison": Question(experiments.comparison, limit_s=120, then=looking_back.experiment),
    "experiment-plan": Question(experiments.experiment_plan, limit_s=120, then=looking_back.experiment),
    "experiment-begun": Question(experiments.begun),
    "experiment-candidates": Question(experiments.candidates, limit_s=120),
}
