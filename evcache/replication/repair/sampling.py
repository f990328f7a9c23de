"""Choice of a share of the keys that reads serve. No I/O, no clock."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection

# Largest number of keys between two chosen ones. A share below one in this number would overflow.
_MOST = 2.0**53


class RepairSampler:
    """Choice of keys at random. Each key has the same chance, independent of the keys read with it, before it or after it.

    The sampler draws how many keys pass until the next one that is chosen (a geometric distribution). So a key that is not
    chosen costs one subtraction and one comparison, in a batch of keys too.
    """

    __slots__ = ("_draw", "_left", "_share")

    def __init__(self, share: float, draw: Callable[[], float] = random.random) -> None:
        """Draw the first key.

        Args:
            share: Chance of each key, from 0 to 1.
            draw: Returns a random number, from 0 up to 1.
        """
        self._share = share
        self._draw = draw
        self._left = self.draw_gap()

    def draw_gap(self) -> float:
        """Return the number of keys until the next chosen one, that one included. A reader may count them on its own."""
        if self._share <= 0:
            return math.inf
        if self._share >= 1:
            return 1
        return 1 + int(min(math.log1p(-self._draw()) / math.log1p(-self._share), _MOST))

    def choose(self, keys: Collection[bytes]) -> list[bytes]:
        """Count the keys of a batch, and return those of them that are chosen."""
        count = len(keys)
        if self._left > count:
            self._left -= count
            return []
        chosen: list[bytes] = []
        passed = 0
        ordered = list(keys)
        while passed + self._left <= count:
            passed += int(self._left)
            chosen.append(ordered[passed - 1])
            self._left = self.draw_gap()
        self._left -= count - passed
        return chosen
