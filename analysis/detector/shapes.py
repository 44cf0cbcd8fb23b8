"""How far the latest rows are from the nearest stretch of the past: the left matrix profile of a stream (Yeh et al.
2016, "Matrix Profile I", with distances that are not normalised, since a level that never was is unusual, too)."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coupon_ledger.analysis.detector.tail import KEPT

_FIRST: Final = 6
"""No distance before there are so many stretches to compare with."""
_EXACT_EVERY: Final = 64
"""Rows between two exact calculations, so that rounding errors do not add up."""


class Nearest:
    """The Euclidean distance from the last `width` values to the nearest earlier stretch of the same length that does
    not overlap it."""

    def __init__(self, width: int, kept: int = KEPT) -> None:
        self._width = width
        self._kept = kept
        self._values: npt.NDArray[Any] = np.empty(2 * kept)
        self._n = 0
        self._rows = 0
        self._squares: npt.NDArray[Any] = np.empty(0)
        """Per earlier row, the squared distance between the stretches that end there and at the latest row."""

    def step(self, value: float) -> float:
        """Take the next value; its distance, or NaN while the past is too short. O(n) for a past of n rows."""
        past = self._values[: self._n]
        if self._rows % _EXACT_EVERY == 0:
            squares = self._exact(past, value)
        else:
            squares = (past - value) ** 2
            squares[1:] += self._squares
            gone = self._n - self._width
            if gone >= 0:
                squares[self._width :] -= (past[:gone] - past[gone]) ** 2
        self._squares = squares
        self._append(value)
        comparable = squares[self._width - 1 : len(squares) - self._width + 1]
        return math.sqrt(max(float(comparable.min()), 0.0)) if len(comparable) >= _FIRST else math.nan

    def _exact(self, past: npt.NDArray[Any], value: float) -> npt.NDArray[Any]:
        squares = (past - value) ** 2
        for back in range(1, min(self._width, len(past))):
            squares[back:] += (past[:-back] - past[-back]) ** 2
        return squares

    def _append(self, value: float) -> None:
        if self._n == len(self._values):
            self._values[: self._kept] = self._values[self._kept :]
            self._n = self._kept
            self._squares = self._squares[self._kept :]
        self._values[self._n] = value
        self._n += 1
        self._rows += 1
