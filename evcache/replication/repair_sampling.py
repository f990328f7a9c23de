"""Choice of a share of the keys that reads serve. No I/O, no clock."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection

# Keys to pass at the most: a smaller share than one in this number would overflow.
_MOST = 2.0**53


class RepairSampler:
    """Choice of keys at random. Each key has the same chance, independent of the keys read with it, before it or after it.

    The sampler draws how many keys pass until the next one that is chosen (a geometric distribution). So a key that is not
    chosen costs one subtraction and one comparison, in a batch of keys too.
    """

    __slots__ = ("_draw", "_share", "left")

    def __init__(self, share: float, draw: Callable[[], float] = random.random) -> None:
        """Draw the first key. `share`: chance of each key, from 0 to 1. `draw`: uniform from 0 up to 1."""
        self._share = share
        self._draw = draw
        self.left: float = 0
        """Keys that are left until the next chosen one, that one included. A reader of one key subtracts 1, and calls
        `restart` when nothing is left: then its key is chosen."""
        self.restart()

    def restart(self) -> None:
        """Draw the next key."""
        if self._share <= 0:
            self.left = math.inf
        elif self._share >= 1:
            self.left = 1
        else:
            self.left = 1 + int(min(math.log1p(-self._draw()) / math.log1p(-self._share), _MOST))

    def choose(self, keys: Collection[bytes]) -> list[bytes]:
        """Count the keys of a batch, and return those of them that are chosen."""
        count = len(keys)
        if self.left > count:
            self.left -= count
            return []
        chosen: list[bytes] = []
        passed = 0
        ordered = list(keys)
        while passed + self.left <= count:
            passed += int(self.left)
            chosen.append(ordered[passed - 1])
            self.restart()
        self.left -= count - passed
        return chosen
