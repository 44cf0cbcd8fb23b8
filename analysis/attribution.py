"""Attribution models: how much each touch contributed to an order. Pure functions of paths.

A path is the touches of one person in chronological order. It ends with an order, or without one. Many paths are stored
together in flat arrays (`Paths`), so that a model computes the credit in millions of paths at once.

Always true: the weights of the touches of one path sum to one. No result depends on the order of the paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import Final

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

EXACT_UP_TO: Final = 12
"""Up to this many players, all coalitions are evaluated. With more players, random permutations are sampled."""
MOST_PLAYERS: Final = 62
"""Maximum number of players. A coalition is a 64-bit integer with one bit per player."""
_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Paths:
    """Many paths in flat arrays. The touches of path n have the indexes from `offsets[n]` up to, but not including,
    `offsets[n + 1]`, the earliest touch first. `states`: the channel or campaign of each touch, as a small integer.
    `ages`: the time from each touch to the end of its path, in any unit."""

    offsets: Int64
    states: Int64
    ages: Float64 | Int64

    @property
    def lengths(self) -> Int64:
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int64:
        """For each touch, the number of the path to which it belongs."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    def kept(self, chosen: Mask) -> Paths:
        """All paths, but with only the chosen touches. A path may then have no touches. `chosen`: one boolean per
        touch."""
        counted = np.r_[0, np.cumsum(chosen)]
        return Paths(counted[self.offsets], self.states[chosen], self.ages[chosen])

    def some(self, chosen: Mask) -> Paths:
        """Only the chosen paths, with all their touches. `chosen`: one boolean per path."""
        touches = np.repeat(chosen, self.lengths)
        return Paths(np.r_[0, np.cumsum(self.lengths[chosen])], self.states[touches], self.ages[touches])


# --- Models per order: the weights of its touches


def last(paths: Paths) -> Float64:
    """The weight of each touch: 1 for the last touch of a path, 0 for the others."""
    weights = np.zeros(len(paths.states))
    weights[paths.offsets[1:][paths.lengths > 0] - 1] = 1
    return weights


def first(paths: Paths) -> Float64:
    """The weight of each touch: 1 for the first touch of a path, 0 for the others."""
    weights = np.zeros(len(paths.states))
    weights[paths.offsets[:-1][paths.lengths > 0]] = 1
    return weights


def linear(paths: Paths) -> Float64:
    """The weight of each touch: the same for all touches of a path."""
    return _each(paths, 1 / np.maximum(paths.lengths, 1))


def time_decay(paths: Paths, half_life: float) -> Float64:
    """The weight of each touch, where a touch that is older by `half_life` has half the weight. `half_life`: in the
    unit of the ages."""
    if not len(paths.states):
        return np.zeros(0)
    there = paths.lengths > 0
    # Ages are relative to the last touch, so that the weights of a path of old touches do not underflow.
    youngest = np.zeros(len(there))
    youngest[there] = paths.ages[paths.offsets[1:][there] - 1]
    weights = np.exp2(-(paths.ages - _each(paths, youngest)) / half_life)
    sums = np.ones(len(there))
    sums[there] = np.add.reduceat(weights, paths.offsets[:-1][there])
    return weights / _each(paths, sums)


def position(paths: Paths, first_share: float, last_share: float) -> Float64:
    """The weight of each touch: `first_share` for the first touch of a path, `last_share` for the last, and the rest in
    equal parts for the touches between them (for example 40%, 20%, 40%). If a path has only two touches, their weights
    are in the proportion of the two shares and sum to one. A single touch has the weight 1."""
    lengths = paths.lengths
    ends = first_share + last_share
    two = lengths == 2
    of_first = np.where(two, first_share / ends if ends else 0.5, first_share)
    of_last = np.where(two, last_share / ends if ends else 0.5, last_share)
    weights = _each(paths, (1 - ends) / np.maximum(lengths - 2, 1))
    there = lengths > 0
    starts, lasts = paths.offsets[:-1][there], paths.offsets[1:][there] - 1
    weights[starts], weights[lasts] = of_first[there], of_last[there]
    weights[starts[lengths[there] == 1]] = 1
    return weights


def shared_by_distinct(paths: Paths) -> Float64:
    """The weight of each touch: each distinct state of a path gets an equal part of the credit, and all touches of one
    state share its part equally.

    The result is the Shapley value if the worth v(S) of a coalition S is the number of orders of people who met only
    members of S. Let R(T) be the orders of people who met exactly the states T. Then v(S) is the sum of R(T) over all T
    within S, and each member of T gets an equal part of R(T) (Zhao, Mahboobi, Bagheri: Shapley Value Methods for
    Attribution Modeling in Online Advertising, 2018, section 4). Exact for any number of states.
    """
    if not len(paths.states):
        return np.zeros(0)
    pairs = paths.owners * (int(paths.states.max()) + 1) + paths.states
    _, place, times = np.unique(pairs, return_inverse=True, return_counts=True)
    part = 1 / times[place]
    distinct = np.bincount(paths.owners, part, len(paths.lengths))
    return np.asarray(part / np.repeat(np.maximum(distinct, 1), paths.lengths))


def _each(paths: Paths, of_path: Float64) -> Float64:
    return np.repeat(np.asarray(of_path, dtype=np.float64), paths.lengths)


# --- Models over all paths: the worth of states


class Journeys:
    """A first-order Markov chain, estimated from paths: counts how often one state follows another.

    The states of touches have the numbers 0 to n-1. Three more states are the start of a path (n), its end with an
    order (n+1), and its end without one (n+2).
    """

    def __init__(self, states: int) -> None:
        self.states = states
        self.counts: Int64 = np.zeros((states + 3, states + 3), dtype=np.int64)

    def add(self, paths: Paths, ordered: Mask) -> None:
        """Count the transitions of more paths. `ordered`: for each path, whether it ends with an order. Paths without
        touches are ignored."""
        there = paths.lengths > 0
        starts, lasts = paths.offsets[:-1][there], paths.offsets[1:][there] - 1
        inner = np.ones(len(paths.states), dtype=np.bool_)
        inner[lasts] = False
        before = np.flatnonzero(inner)
        self._count(paths.states[before], paths.states[before + 1])
        self._count(np.full(len(starts), self.states), paths.states[starts])
        self._count(paths.states[lasts], np.where(ordered[there], self.states + 1, self.states + 2))

    def _count(self, come_from: Int64, go_to: Int64) -> None:
        size = len(self.counts)
        self.counts += np.bincount(come_from * size + go_to, minlength=size * size).reshape(size, size)

    def removal_effects(self) -> tuple[float, Float64]:
        """The probability that a path ends with an order and, for each state, the share of this probability that is
        lost if the state is removed. If a state is removed, every path that reaches it ends without an order.

        Anderl, Becker, von Wangenheim, Schumann: Mapping the customer journey (2016). Solved exactly with the
        fundamental matrix N of the chain (Kemeny, Snell): a path meets state i with probability (sN)_i / N_ii, and ends
        with an order from there with probability (Nr)_i, where s are the probabilities of the first state and r those
        of an order right after each state. The product of the two is the probability that is lost without state i.
        """
        n = self.states
        left = self.counts.sum(axis=1)
        chances = self.counts / np.maximum(left, 1)[:, None]
        fundamental = np.linalg.inv(np.eye(n) - chances[:n, :n])
        start, buying = chances[n, :n], fundamental @ chances[:n, n + 1]
        met = start @ fundamental / np.diag(fundamental)
        chance = float(start @ buying)
        return chance, met * buying / chance if chance else np.zeros(n)


Worth = Callable[[npt.NDArray[np.uint64]], Float64]
"""The worth of each coalition. A coalition is an integer with the bits of its members set."""


def shapley(worth: Worth, players: int) -> Float64:
    """The Shapley value of each player: its share of the worth of all players together. Computed from the worth of all
    2^n coalitions, which is practical for up to about `EXACT_UP_TO` players. `players`: how many players there are.

    Shapley: A value for n-person games (1953).
    """
    coalitions = np.arange(1 << players, dtype=np.uint64)
    worths = worth(coalitions)
    sizes = np.array([bin(c).count("1") for c in range(1 << players)])
    chances = [factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)]
    values = np.zeros(players)
    for player in range(players):
        bit = np.uint64(1 << player)
        without = coalitions[(coalitions & bit) == 0].astype(np.int64)
        values[player] = np.sum(np.take(chances, sizes[without]) * (worths[without | (1 << player)] - worths[without]))
    return values


def shapley_sampled(worth: Worth, players: int, draws: int, seed: int) -> tuple[Float64, Float64]:
    """Estimates of the Shapley values of all players, and the standard error of each estimate. The estimates come from
    `draws` random permutations of the players, and sum exactly to the worth of all players (Castro, Gómez, Tejada:
    Polynomial calculation of the Shapley value based on sampling, 2009). `players`: how many players there are."""
    generator = np.random.default_rng(seed)
    sums, squares = np.zeros(players), np.zeros(players)
    for at in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - at)
        joining = generator.permuted(np.tile(np.arange(players), (rows, 1)), axis=1)
        members = np.cumsum(np.uint64(1) << joining.astype(np.uint64), axis=1, dtype=np.uint64)
        worths = worth(np.c_[np.zeros(rows, dtype=np.uint64), members].ravel()).reshape(rows, players + 1)
        gains = np.zeros((rows, players))
        np.put_along_axis(gains, joining, np.diff(worths, axis=1), axis=1)
        sums += gains.sum(axis=0)
        squares += (gains**2).sum(axis=0)
    variance = np.maximum(squares - sums**2 / draws, 0) / max(draws - 1, 1)
    return sums / draws, np.sqrt(variance / draws)


class Coalitions:
    """The worth of coalitions of states. Computed from the number of people and of buyers for each set of states that
    people met.

    The worth of a coalition is the share of buyers among the people who met no other states, times the number of all
    people. It is 0 if there are no such people.
    """

    def __init__(self, states: int) -> None:
        self.states = states
        self._counts: dict[int, tuple[int, int]] = {}

    def add(self, paths: Paths, ordered: Mask) -> None:
        """Count the people and buyers of more paths. `ordered`: for each path, whether it ends with an order. Paths
        without touches are ignored."""
        there = paths.lengths > 0
        if not there.any():
            return
        bits = np.uint64(1) << paths.states.astype(np.uint64)
        members = np.bitwise_or.reduceat(bits, paths.offsets[:-1][there])
        distinct, place = np.unique(members, return_inverse=True)
        paths_of, orders_of = np.bincount(place), np.bincount(place, ordered[there])
        for coalition, all_, bought in zip(distinct.tolist(), paths_of.tolist(), orders_of.tolist(), strict=True):
            before = self._counts.get(coalition, (0, 0))
            self._counts[coalition] = (before[0] + all_, before[1] + int(bought))

    def worth(self, coalitions: npt.NDArray[np.uint64]) -> Float64:
        members = np.array(list(self._counts), dtype=np.uint64)
        counted = np.array(list(self._counts.values()), dtype=np.float64).reshape(-1, 2)
        distinct, place = np.unique(coalitions, return_inverse=True)
        met, bought = np.zeros(len(distinct)), np.zeros(len(distinct))
        for member, (all_, orders) in zip(members, counted, strict=True):
            within = (member & ~distinct) == 0
            met += all_ * within
            bought += orders * within
        rate = np.divide(bought, met, out=np.zeros(len(distinct)), where=met > 0)
        return np.asarray((rate * counted[:, 0].sum())[place])

    def value(self, draws: int, seed: int = 1) -> tuple[Float64, Float64]:
        """The Shapley value of each state, as a number of orders, and its standard error (0 if the value is exact).
        States that are in no path have the value 0. With more than `EXACT_UP_TO` states, the values are estimated from
        `draws` random permutations."""
        met = [s for s in range(self.states) if any(coalition >> s & 1 for coalition in self._counts)]
        among = np.array([1 << s for s in met], dtype=np.uint64)

        def worth(coalitions: npt.NDArray[np.uint64]) -> Float64:
            whole = np.zeros(len(coalitions), dtype=np.uint64)
            for place, bit in enumerate(among):
                whole |= np.where((coalitions >> np.uint64(place)) & np.uint64(1), bit, np.uint64(0))
            return self.worth(whole)

        values, errors = np.zeros(self.states), np.zeros(self.states)
        if len(met) <= EXACT_UP_TO:
            values[met] = shapley(worth, len(met))
        else:
            values[met], errors[met] = shapley_sampled(worth, len(met), draws, seed)
        return values, errors


def apportioned(total: int, weights: Float64) -> list[int]:
    """Split `total` into whole numbers that sum to it, as close to the proportions of the weights as possible
    (Hamilton's method of largest remainders). All are 0 if the weights are."""
    exact = np.asarray(weights, dtype=np.float64) * total / (weights.sum() or 1)
    parts = [int(part) for part in np.floor(exact)]
    left = total - sum(parts) if weights.sum() else 0
    order = np.argsort(np.floor(exact) - exact, kind="stable")
    if not 0 <= left <= len(parts):  # above 2^53, the floor is not exact
        parts[order[0]] += left
        return parts
    for place in order[:left]:
        parts[place] += 1
    return parts
