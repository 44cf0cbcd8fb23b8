"""Random assignment of people to arms, reproducible from a salt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


def draw(ids: Sequence[str], strata: Sequence[str], shares: Mapping[str, float], salt: str) -> list[str]:
    """The arm of each id, in the order of `ids`. `strata`: the stratum of each id; `shares`: the share of each arm,
    summing to one.

    The arm depends only on SHA-256 of salt and id, so the order of the ids does not matter, and another salt gives an
    independent draw. Within a stratum, ids are sorted by hash and divided by the shares, from a random start per
    stratum (systematic sampling: Cochran 1977, Sampling Techniques, chapter 8). Arm sizes are exact to one, and the
    probability of each arm is exactly its share.
    """
    hashes = np.array([_hash(salt, one) for one in ids], dtype=np.uint64)
    numbers: dict[str, int] = {}
    stratum = np.array([numbers.setdefault(s, len(numbers)) for s in strata], dtype=np.int64)
    starts = np.array([_hash(salt, f"\0{name}") / 2**64 for name in numbers])
    order = np.lexsort((hashes, stratum))
    sizes = np.bincount(stratum, minlength=len(numbers))
    rank = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + starts[stratum[order]]) / sizes[stratum[order]]
    edges = np.cumsum(list(shares.values()))[:-1]
    arm = np.empty(len(ids), dtype=np.int64)
    arm[order] = np.searchsorted(edges, place, side="right")
    names = list(shares)
    return [names[number] for number in arm]


def _hash(salt: str, of: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{of}".encode()).digest()[:8])
