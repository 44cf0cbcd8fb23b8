"""Who is who: ids that `linked` events join are one person, transitively."""

from __future__ import annotations

import numpy as np
import polars as pl

from projections.store import Reading, sql


def persons_of(reading: Reading) -> pl.DataFrame:
    """Every id that is linked to another, with its `person`: by the users that are read, of the present or the past,
    however far the table `persons` has come. Whoever counts people goes by it."""
    return persons(reading.frame(sql(__package__, "links")))


def persons(links: pl.DataFrame) -> pl.DataFrame:
    """Every id of the links (`user_id`, `alias_id`) with its `person`, by id.

    The person is the first, in the order of their UTF-8 bytes, of those ids that are nobody's alias; where every one is
    (a ring), the first of all. So it depends on the set of links alone.
    """
    links = links.filter(pl.col("user_id") != pl.col("alias_id"))
    ids = pl.concat([links["user_id"], links["alias_id"].alias("user_id")]).unique().sort()
    aliases = ids.is_in(links["alias_id"].implode())
    # Numbered so that the least number of a person is the one wanted.
    numbered = pl.DataFrame({"user_id": ids, "alias": aliases}).sort("alias", "user_id").with_row_index("number")
    number = dict(zip(numbered["user_id"], numbered["number"], strict=True))
    one, other = (np.array([number[i] for i in links[name]], dtype=np.int64) for name in ("user_id", "alias_id"))
    least = np.arange(len(ids))
    while True:
        # Each takes a neighbour's least number, then that of whom it comes from: few rounds for long chains.
        before = least.copy()
        np.minimum.at(least, least[one], least[other])
        np.minimum.at(least, least[other], least[one])
        np.minimum.at(least, one, least[other])
        np.minimum.at(least, other, least[one])
        least = least[least]
        if (least == before).all():
            break
    return numbered.select("user_id", person=numbered["user_id"].gather(least)).sort("user_id")
