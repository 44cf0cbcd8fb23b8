"""Assigns people to the arms of an experiment at random. The same salt gives the same assignment again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


def draw(ids: Sequence[str], strata: Sequence[str], shares: Mapping[str, float], salt: str) -> list[str]:
    """The arm of each id, in the order of `ids`. `strata`: the stratum of each id; `shares`: the share of each arm. The
    shares must sum to one.

    Within a stratum, the ids are sorted by the SHA-256 of salt and id, and divided by the shares, from a start that is
    random for each stratum (systematic sampling: Cochran 1977, Sampling Techniques, chapter 8). The number of people in
    an arm differs from its share of the stratum by less than one, and the probability of each arm is exactly its share.
    The order of the ids does not matter. Another salt gives an independent draw.
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
