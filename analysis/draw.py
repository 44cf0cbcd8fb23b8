"""Who comes into which arm: by chance, and yet the same every time it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


def draw(ids: Sequence[str], strata: Sequence[str], shares: Mapping[str, float], salt: str) -> list[str]:
    """An arm for each id, in their order. `strata`: of each id; `shares`: by arm, summing to one.

    What decides is SHA-256 of salt and id alone, so the order in which ids come changes nothing, and another salt is an
    independent draw. Within a stratum ids are lined up by their hashes and cut by the shares, from a start of its own
    (systematic sampling: Cochran 1977, Sampling Techniques, chapter 8): sizes are exact to one, and each id has exactly
    the arm's share as its chance.
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
