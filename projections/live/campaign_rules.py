"""The rules for a campaign's coupons: `over_issue`, `over_user_limit`, `over_person_limit`, `outside_claim_window`.

Each coupon counts once, when it is first acquired. The acquisitions of a campaign are ranked by instant, then by
`event_id`, then by coupon.

The *terms* of a campaign are its quantity, limit per user and claim window, with the instant from which they are in
force. A coupon is over the quantity in force at its acquisition if at least that many acquisitions come before it in
the ranking. So for each quantity there is one place in the ranking from which on coupons are over the quantity: the
*cut*. The cut is stored with the number of acquisitions before it.

A late claim shifts the ranks of all later acquisitions. But each acquisition that is added or removed before the cut
moves the cut by only one place, and the violations change only for the coupons that the cut passes. So the cost of a
batch depends on its changes and not on the size of the campaign.

A person has few acquisitions in a campaign. These are ranked again when one of them changes, or when the set of the
person's ids changes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl
from polars._typing import PolarsDataType

from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON
from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import Adding, Reading, sql
from coupon_ledger.projections.live import violations
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.live.entities import TERM_EVENTS
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Store

_VALUES: Final = ("quantity", "per_user_limit", "claim_from", "claim_until")
_CAMPAIGN: Final = ["campaign_hash", "campaign_id"]
_PLACE: Final = ["acquired_at", "acquired_event_id", "coupon_id"]
_ACQUIRED: Final = ["campaign_id", "acquired_at", "acquired_event_id", "acquired_by"]
_ROW: Final[dict[str, PolarsDataType]] = {
    "key_hash": pl.Int64,
    "coupon_id": pl.String,
    "campaign_id": pl.String,
    "acquired_at": pl.Datetime("us"),
    "acquired_event_id": pl.String,
    "acquired_by": pl.String,
}
_HASHED: Final = (("campaign_hash", "campaign_id"), ("user_hash", "acquired_by"))
_NO_MEMBERS: Final = pl.DataFrame(schema={**_ROW, "campaign_hash": pl.Int64, "user_hash": pl.Int64})
_MEMBER: Final = _NO_MEMBERS.columns
_RANKED: Final = ["campaign_id", *_PLACE]
_CUT: Final = [*_CAMPAIGN, "quantity", "before", *_PLACE]
_GROUP: Final = [*_CAMPAIGN, "user_hash", "acquired_by"]
_LIMITS: Final = ("over_user_limit", "over_person_limit")
_FAR: Final = 100_000
"""A cut that moves by this many places or more is computed from all acquisitions of its campaign instead."""


def settle(store: Store, coupons: Changes | None, campaigns: Changes | None, relinked: pl.DataFrame) -> None:
    """Update acquisitions, terms, cuts and violations for the changes of a batch in coupons and campaigns.

    `relinked`: the ids (`user_id`) whose person may have changed. `persons` is already up to date.
    """
    removed, added = keep(store, coupons)
    whole = _update_terms(store, campaigns)
    regrouped = _of_users(store, relinked)
    touched = pl.concat([rows.select(_CAMPAIGN) for rows in (removed, added, whole, regrouped)]).unique()
    if not touched.height:
        return
    terms, stored = (_of_campaigns(store, table, touched) for table in ("campaign_terms", "stock_cuts"))
    cuts = stored.select(_CUT)
    ruled = terms.select("campaign_id").unique()
    cuts = cuts.join(whole, on="campaign_id", how="anti")
    gone, new, regrouped = (
        rows.join(whole, on="campaign_id", how="anti").join(ruled, on="campaign_id", how="semi")
        for rows in (removed, added, regrouped)
    )
    if not (gone.height or new.height or whole.height or regrouped.height):
        return
    lost = gone.join(new, on=_RANKED, how="anti")
    cuts, passed, far = _moved(store, _shifted(cuts, gone, new), lost)
    whole = pl.concat([whole, far]).unique()
    everyone = _members_of_campaigns(store, whole)
    cuts = pl.concat([cuts, _cuts(everyone, terms, whole)])
    store.replace("stock_cuts", stored, cuts)
    passed = pl.concat([new.select(_MEMBER), passed, everyone]).unique("coupon_id")
    changed = pl.concat([rows.select(_GROUP) for rows in (gone, new, regrouped)])
    groups = pl.concat([_members_of_groups(store, changed, terms), everyone]).unique("coupon_id")
    beside = _in_force(passed, terms)
    wanted = [_over_issue(beside, cuts), _outside(beside), _over_limits(store, groups, terms)]
    # No violations are stored of coupons that had not been acquired before.
    fresh = added.join(removed, on="coupon_id", how="anti")
    old, in_groups = (
        pl.concat([removed.select(_MEMBER), rows]).join(fresh, on="coupon_id", how="anti") for rows in (passed, groups)
    )
    looked_at = {"over_issue": old, "outside_claim_window": old} | dict.fromkeys(_LIMITS, in_groups)
    violations.replace(store, _stored(store, looked_at), pl.concat(wanted))


def settle_new(adding: Adding, campaigns: pl.DataFrame) -> None:
    """Compute and insert the terms, cuts and violations of these campaigns (`campaign_hash`, `campaign_id`). All their
    acquisitions must be stored, but no terms, cuts or violations."""
    terms = terms_of(adding, campaigns)
    members = _members_of_campaigns(adding, terms.select(_CAMPAIGN).unique())
    cuts = _cuts(members, terms, campaigns)
    adding.insert("campaign_terms", terms)
    adding.insert("stock_cuts", cuts)
    violations.add(adding, _broken_behind(adding, cuts, members, terms))


# ── Acquisitions ─────────────────────────────────────────────────────────────────────────────────────────────


def keep(store: Store, coupons: Changes | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Update the table `acquisitions` for the changes of a batch in coupons. Returns two frames: the rows that were
    removed, and the rows that were added."""
    removed, added = (_NO_MEMBERS, _NO_MEMBERS) if coupons is None else acquisitions(coupons)
    if removed.height:
        with store.given(removed=removed):
            store.execute(sql(__package__, "remove_acquisitions"))
    store.insert("acquisitions", added)
    return removed, added


def acquisitions(coupons: Changes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two frames with rows of the table `acquisitions`: those that the batch removes, and those that it adds. If an
    acquisition changes, its old row is removed and its new row is added."""
    columns = ["key_hash", "coupon_id", *_ACQUIRED]
    before, after = coupons.before.select(columns), coupons.after.select(columns)
    same = pl.select(pl.all_horizontal(before[c].eq_missing(after[c]) for c in _ACQUIRED)).to_series()
    counts = pl.col("campaign_id").is_not_null() & pl.col("acquired_at").is_not_null()
    removed, added = (_hashed(rows.filter(~same).filter(counts)) for rows in (before, after))
    return removed, added


def _hashed(rows: pl.DataFrame) -> pl.DataFrame:
    hashes = ((name, pl.Series(stable_hash(rows[of]), dtype=pl.Int64)) for name, of in _HASHED)
    return rows.with_columns(**dict(hashes))


def _members_of_campaigns(reading: Reading, campaigns: pl.DataFrame) -> pl.DataFrame:
    """All acquisitions in these campaigns."""
    if not campaigns.height:
        return _NO_MEMBERS
    with reading.given(chosen=campaigns):
        return reading.frame(sql(__package__, "members_of_campaigns")).select(_MEMBER)


def _of_users(store: Store, users: pl.DataFrame) -> pl.DataFrame:
    """All acquisitions by these ids (`user_id`)."""
    if not users.height:
        return _NO_MEMBERS
    hashes = pl.Series(stable_hash(users["user_id"]), dtype=pl.Int64)
    rows = lookup.of_hashes(store, "acquisitions", "user_hash", hashes)
    return rows.join(users, left_on="acquired_by", right_on="user_id", how="semi").select(_MEMBER)


def _members_of_groups(store: Store, changed: pl.DataFrame, terms: pl.DataFrame) -> pl.DataFrame:
    """The acquisitions of the persons and campaigns in `changed` (pairs of campaign and user): all those in the
    campaign by the person whom the user is. Campaigns without a limit per user in `terms` are skipped."""
    limited = terms.filter(pl.col("per_user_limit").is_not_null())
    chosen = changed.join(limited, on="campaign_id", how="semi").unique()
    if not chosen.height:
        return _NO_MEMBERS
    with store.given(chosen=chosen):
        ids = store.frame(sql(__package__, "ids_in_campaigns"))
    others = ids.with_columns(user_hash=pl.Series(stable_hash(ids["acquired_by"]), dtype=pl.Int64))
    chosen = pl.concat([chosen, others.select(_GROUP)]).unique()
    with store.given(chosen=chosen):
        return store.frame(sql(__package__, "members_of_groups")).select(_MEMBER)


# ── Terms ────────────────────────────────────────────────────────────────────────────────────────────────────


def _update_terms(store: Store, campaigns: Changes | None) -> pl.DataFrame:
    """Update the table `campaign_terms` for the changes of a batch. Returns the campaigns whose terms changed."""
    none = pl.DataFrame(schema={"campaign_hash": pl.Int64, "campaign_id": pl.String})
    if campaigns is None:
        return none
    events = campaigns.events("key_hash", "campaign_id", *_VALUES)
    events = events.filter(pl.any_horizontal(pl.col(_VALUES).is_not_null()))
    touched = events.select(pl.col("key_hash").alias("campaign_hash"), "campaign_id").unique()
    if not touched.height:
        return none
    before, after = _of_campaigns(store, "campaign_terms", touched), terms_of(store, touched)
    removed, added = store.replace("campaign_terms", before, after)
    return pl.concat([removed.select(_CAMPAIGN), added.select(_CAMPAIGN)]).unique()


def _of_campaigns(store: Store, table: str, campaigns: pl.DataFrame) -> pl.DataFrame:
    """The rows of `table` for these campaigns, with their `row_id`."""
    rows = lookup.of_hashes(store, table, "campaign_hash", campaigns["campaign_hash"])
    return rows.join(campaigns, on=_CAMPAIGN, how="semi")


def terms_of(reading: Reading, campaigns: pl.DataFrame) -> pl.DataFrame:
    """The terms of these campaigns (`campaign_hash`, `campaign_id`), computed from their journal."""
    with reading.given(touched=campaigns):
        of_types = {"types": list(types(CAMPAIGN)), "carrying": list(TERM_EVENTS)}
        return reading.frame(sql(__package__, "terms_from_journal"), of_types)


# ── Cuts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _ranked(members: pl.DataFrame, within: list[str]) -> pl.DataFrame:
    """Acquisitions in the order of the ranking. Those that are equal in the columns `within` form a group. `rank`: the
    place in the group, from 1."""
    return members.sort(*within, *_PLACE).with_columns(rank=pl.int_range(1, pl.len() + 1).over(within))


def _cuts(members: pl.DataFrame, terms: pl.DataFrame, campaigns: pl.DataFrame) -> pl.DataFrame:
    """The cuts of `campaigns`, computed from their terms (`terms`) and all their acquisitions (`members`)."""
    wanted = terms.join(campaigns, on="campaign_id", how="semi").filter(pl.col("quantity").is_not_null())
    out = members.group_by("campaign_id").agg(out=pl.len().cast(pl.Int64))
    ranked = _ranked(members, ["campaign_id"]).select("campaign_id", pl.col("rank") - 1, *_PLACE)
    return (
        wanted.select(*_CAMPAIGN, "quantity")
        .unique()
        .join(out, on="campaign_id", how="left")
        .with_columns(before=pl.min_horizontal("quantity", pl.col("out").fill_null(0)))
        .join(ranked, left_on=["campaign_id", "quantity"], right_on=["campaign_id", "rank"], how="left")
        .select(_CUT)
    )


def _shifted(cuts: pl.DataFrame, removed: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    """Adjust the cuts' numbers of earlier acquisitions (`before`) to the removed and added acquisitions. The places of
    the cuts stay the same."""
    steps = pl.concat([removed.select(*_RANKED, n=pl.lit(-1)), added.select(*_RANKED, n=pl.lit(1))])
    at_end = cuts.filter(pl.col("acquired_at").is_null())
    inside = cuts.filter(pl.col("acquired_at").is_not_null())
    all_of = steps.group_by("campaign_id").agg(pl.col("n").sum())
    at_end = at_end.join(all_of, on="campaign_id", how="left")
    # Acquisitions after the campaign's last cut shift no cut.
    last = inside.group_by("campaign_id").agg(last=pl.col("acquired_at").max())
    steps = steps.join(last, on="campaign_id").filter(pl.col("acquired_at") <= pl.col("last")).drop("last")
    if steps.height:
        numbered = inside.select(*_RANKED, n=pl.lit(0), cut=pl.int_range(pl.len()))
        # A cut at the place of an acquisition lies before it, so the acquisition does not count in `before`.
        marks = pl.concat([numbered, steps.with_columns(cut=pl.lit(None, pl.Int64))]).sort(
            *_RANKED, "cut", nulls_last=True
        )
        shifts = marks.with_columns(pl.col("n").cum_sum().over("campaign_id")).filter(pl.col("cut").is_not_null())
        inside = inside.with_columns(n=shifts.sort("cut")["n"])
    else:
        inside = inside.with_columns(n=pl.lit(0))
    both = pl.concat([at_end.select(*_CUT, "n"), inside.select(*_CUT, pl.col("n").cast(at_end["n"].dtype))])
    return both.select(pl.exclude("n", "before"), before=pl.col("before") + pl.col("n").fill_null(0)).select(_CUT)


def _moved(store: Store, cuts: pl.DataFrame, lost: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Move each cut from `_shifted` to the place in the ranking where `before` equals the quantity. Returns three
    frames: the cuts, the acquisitions that the cuts passed, and the campaigns with a cut that would move by `_FAR`
    places or more. The cuts of these campaigns are left out.

    `lost`: the removed acquisitions. A cut whose place was that of a removed acquisition moves to the next one. It
    passes no acquisition by this.
    """
    places = pl.col("before") - pl.col("quantity")
    at_end = pl.col("acquired_at").is_null()
    moves = cuts.with_row_index("move").with_columns(places=places.abs(), backward=places > 0)
    unsupported = moves.join(lost, on=_RANKED, how="semi")["move"]
    moves = moves.filter((places > 0) | ((places < 0) & ~at_end) | pl.col("move").is_in(unsupported.implode()))
    if not moves.height:
        return cuts, _NO_MEMBERS, moves.select(_CAMPAIGN)
    far = moves.filter(pl.col("places") >= _FAR).select(_CAMPAIGN).unique()
    cuts = cuts.with_row_index("move").join(far, on="campaign_id", how="anti")
    moves = moves.join(far, on="campaign_id", how="anti")
    near = _near(store, moves)
    before_cut = pl.col("cut_at").is_null() | _before(_PLACE, ["cut_at", "cut_event_id", "cut_coupon_id"])
    near = near.filter(before_cut == pl.col("backward")).sort("move", *_PLACE)
    # `turn`: the number of the acquisition, counted from 0 for the first one in the ranking that the cut passes.
    turn, n = pl.int_range(pl.len()).over("move"), pl.len().over("move")
    near = near.with_columns(turn=pl.when("backward").then(turn - n + pl.col("places")).otherwise(turn), n=n)
    passed = near.filter(pl.when("backward").then(pl.col("turn") >= 0).otherwise(pl.col("turn") < pl.col("places")))
    reached = near.filter(pl.col("turn") == pl.when("backward").then(0).otherwise(pl.col("places")))
    counted = near.group_by("move").agg(met=pl.len())
    moved = (
        moves.select("move", *_CAMPAIGN, "quantity", "before")
        .join(reached.select("move", *_PLACE), on="move", how="left")
        .join(counted, on="move", how="left")
        .with_columns(
            before=pl.when(pl.col("acquired_at").is_null())
            .then(pl.col("before") + pl.col("met").fill_null(0))
            .otherwise("quantity")
        )
    )
    still = cuts.join(moves, on="move", how="anti")
    return pl.concat([still.select(_CUT), moved.select(_CUT)]), passed.select(_MEMBER), far


def _before(place: list[str], other: list[str]) -> pl.Expr:
    """An expression: whether a place in the ranking (the columns `place`) comes before another one (the columns
    `other`)."""
    (a, b, c), (x, y, z) = map(pl.col, place), map(pl.col, other)
    return (a < x) | ((a == x) & ((b < y) | ((b == y) & (c < z))))


def _near(store: Store, moves: pl.DataFrame) -> pl.DataFrame:
    """For each cut (the place in a campaign's ranking where its stock ends) that moves: the acquisitions that it
    passes, and possibly a few more before and after them. `moves`: one row per such cut."""
    columns = ["move", *_CAMPAIGN, "places", "backward"]
    names = dict(zip(_PLACE, ("cut_at", "cut_event_id", "cut_coupon_id"), strict=True))
    moves = moves.rename(names).select(*columns, *names.values())
    with store.given(moves=moves):
        edges = store.frame(sql(__package__, "cut_edges"))
        bounds = {
            "since": edges["since"].fill_null(datetime.min).min(),
            "until": edges["until"].fill_null(datetime.max).max(),
        }
    with store.given(edges=edges):
        near = store.frame(sql(__package__, "near_cuts"), bounds)
    return near.join(moves.drop(_CAMPAIGN), on="move")


# ── The rules ────────────────────────────────────────────────────────────────────────────────────────────────


def broken(reading: Reading, members: pl.DataFrame, terms: pl.DataFrame) -> pl.DataFrame:
    """All violations of these rules in the campaigns that `terms` names. `members`: all acquisitions of these
    campaigns. `terms`: all their terms."""
    return _broken_behind(reading, _cuts(members, terms, terms.select(_CAMPAIGN).unique()), members, terms)


def _broken_behind(reading: Reading, cuts: pl.DataFrame, members: pl.DataFrame, terms: pl.DataFrame) -> pl.DataFrame:
    beside = _in_force(members, terms)
    return pl.concat([_over_issue(beside, cuts), _outside(beside), _over_limits(reading, members, terms)])


def _in_force(members: pl.DataFrame, terms: pl.DataFrame) -> pl.DataFrame:
    """Each acquisition, joined with the terms of its campaign that were in force when the coupon was acquired."""
    return members.sort("acquired_at").join_asof(
        terms.select("campaign_id", "since", *_VALUES).sort("since"),
        left_on="acquired_at",
        right_on="since",
        by="campaign_id",
        strategy="backward",
        check_sortedness=False,
    )


def _over_issue(members: pl.DataFrame, cuts: pl.DataFrame) -> pl.DataFrame:
    names = dict(zip(_PLACE, ("cut_at", "cut_event_id", "cut_coupon_id"), strict=True))
    cuts = cuts.rename(names).select("campaign_id", "quantity", *names.values())
    ranked = members.join(cuts, on=["campaign_id", "quantity"], how="inner")
    return _broken("over_issue", ranked.filter(~_before(_PLACE, list(names.values()))))


def _over_limits(reading: Reading, members: pl.DataFrame, terms: pl.DataFrame) -> pl.DataFrame:
    """The violations of `over_user_limit` and of `over_person_limit`. An acquisition that violates the first is not
    reported for the second.

    `members`: acquisitions. If it has one acquisition of a person in a campaign, it must have all of them. Only persons
    with more acquisitions than the campaign's lowest limit are ranked, since the others can break neither rule.
    """
    lowest = terms.group_by("campaign_id").agg(lowest=pl.col("per_user_limit").min())
    members = _with_persons(reading, members.join(lowest.drop_nulls(), on="campaign_id"))
    members = members.filter(pl.len().over("campaign_id", "person") > pl.col("lowest"))
    of_person = _ranked(members, ["campaign_id", "person"]).rename({"rank": "person_rank"})
    ranked = _in_force(_ranked(of_person, ["campaign_id", "acquired_by"]), terms)
    user = pl.col("rank") > pl.col("per_user_limit")
    person = (pl.col("person_rank") > pl.col("per_user_limit")) & ~user
    return pl.concat([_broken(rule, ranked.filter(over)) for rule, over in zip(_LIMITS, (user, person), strict=True)])


def _with_persons(reading: Reading, members: pl.DataFrame) -> pl.DataFrame:
    """Add the column `person` to acquisitions: the person to whom the acquiring user id belongs."""
    if not members.height:
        return members.with_columns(person="acquired_by")
    with reading.given(members=members.select(user_id="acquired_by").unique()):
        persons = reading.frame(sql(__package__, "persons_of_members"))
    joined = members.join(persons, left_on="acquired_by", right_on="user_id", how="left")
    return joined.with_columns(person=pl.coalesce("person", "acquired_by"))


def _outside(members: pl.DataFrame) -> pl.DataFrame:
    at = pl.col("acquired_at")
    outside = (at < pl.col("claim_from")).fill_null(False) | (at > pl.col("claim_until")).fill_null(False)
    return _broken("outside_claim_window", members.filter(outside))


def _broken(rule: str, members: pl.DataFrame) -> pl.DataFrame:
    return members.select(
        violation=pl.lit(rule),
        topic=pl.lit(COUPON),
        key_hash="key_hash",
        key="coupon_id",
        event_id="acquired_event_id",
        occurred_at="acquired_at",
        counterpart=pl.lit(None, pl.String),
        order_hash=pl.lit(None, pl.Int64),
        trigger_topic=pl.lit(None, pl.String),
        trigger_recorded_at=pl.lit(None, pl.Datetime("us")),
    )


def _stored(store: Store, looked_at: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """The stored violations of these rules. `looked_at`: by rule, the coupons whose violations of this rule are
    wanted."""
    by_rule = [
        coupons.select("key_hash", key="coupon_id", violation=pl.lit(rule)) for rule, coupons in looked_at.items()
    ]
    wanted = pl.concat(by_rule).unique()
    stored = lookup.of_hashes(store, "violations", "key_hash", wanted["key_hash"].unique())
    stored = stored.filter((pl.col("scope") == "cross") & pl.col("order_hash").is_null())
    return stored.join(wanted, on=["key_hash", "key", "violation"], how="semi")
