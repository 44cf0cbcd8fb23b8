"""The table `persons`: all ids that `linked` events join, directly or through other ids, are one person.

`settle` updates the table in the transaction of each batch. So at every commit it agrees with the links of all users.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Store

_NO_IDS: Final = pl.DataFrame(schema={"user_id": pl.String, "person": pl.String})


def settle(store: Store, users: Changes | None) -> pl.DataFrame:
    """Update `persons` for the links that a batch added or removed.

    Returns the ids (`user_id`) whose person may have changed, each with its new `person`. These are the ids in the
    added or removed links, and all other ids of the persons that they belonged to before the batch or belong to after
    it.
    """
    if users is None:
        return _NO_IDS
    links = users.events("user_id", "alias_id", "type").filter(pl.col("type") == "linked")
    if not links.height:
        return _NO_IDS
    ids = pl.concat([links["user_id"], links["alias_id"].alias("user_id")]).unique().to_frame()
    members = pl.concat([ids, whose(store, ids).select("user_id")]).unique()
    after = persons(_links_of(store, members))
    with store.given(members=members):
        stored = store.frame(sql(__package__, "rows_of_ids"))
    store.replace("persons", stored, after)
    return members.join(after, on="user_id", how="left").with_columns(pl.coalesce("person", "user_id").alias("person"))


def whose(reading: Reading, ids: pl.DataFrame) -> pl.DataFrame:
    """All ids (`user_id`) of the persons who have one of the given ids, each with its `person`."""
    with reading.given(changed=ids.select("user_id")):
        return reading.frame(sql(__package__, "ids_of_persons"))


def _links_of(store: Store, members: pl.DataFrame) -> pl.DataFrame:
    """The links (`user_id`, `alias_id`) in the rows of the users `members` (`user_id`)."""
    keys = members.with_columns(key_hash=pl.Series(stable_hash(members["user_id"]), dtype=pl.Int64))
    rows = lookup.of_keys(store, "users", keys.select("key_hash", "user_id")).join(members, on="user_id", how="semi")
    return rows.select("user_id", alias_id="aliases").explode("alias_id").drop_nulls()


def persons_of(reading: Reading) -> pl.DataFrame:
    """Every linked id with its `person`, computed from the links of all users. Also works for a question about the
    past."""
    return persons(reading.frame(sql(__package__, "links")))


def persons(links: pl.DataFrame) -> pl.DataFrame:
    """Every id in `links` (`user_id`, `alias_id`) with its `person`, sorted by id.

    A person's name is one of its ids. Among the ids that are never an `alias_id`, it is the first in the order of UTF-8
    bytes. If every id is an alias (the links form a ring), it is the first of all ids in that order. So the result
    depends only on the set of links.
    """
    links = links.filter(pl.col("user_id") != pl.col("alias_id"))
    ids = pl.concat([links["user_id"], links["alias_id"].alias("user_id")]).unique().sort()
    aliases = ids.is_in(links["alias_id"].implode())
    # Number the ids so that the lowest number among linked ids is that of their person.
    numbered = pl.DataFrame({"user_id": ids, "alias": aliases}).sort("alias", "user_id").with_row_index("number")
    number = dict(zip(numbered["user_id"], numbered["number"], strict=True))
    one, other = (np.array([number[i] for i in links[name]], dtype=np.int64) for name in ("user_id", "alias_id"))
    least = np.arange(len(ids))
    while True:
        # Each id takes the lowest number of its neighbours, then the number of that id, so long chains need few rounds.
        before = least.copy()
        np.minimum.at(least, least[one], least[other])
        np.minimum.at(least, least[other], least[one])
        np.minimum.at(least, one, least[other])
        np.minimum.at(least, other, least[one])
        least = least[least]
        if (least == before).all():
            break
    return numbered.select("user_id", person=numbered["user_id"].gather(least)).sort("user_id")
