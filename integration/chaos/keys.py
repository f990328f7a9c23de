"""The keys of a run. Each family of keys sees certain operations only, and so can be checked for what these promise."""

from __future__ import annotations

from integration.chaos.values import TORN, Value, read_elements, read_value

GENERAL = [f"key-{number}" for number in range(60)]
"""Long-lived values: set, replaced, added, compared, deleted."""
NEVER_DELETED = frozenset(GENERAL[::2])
"""A miss of one of these, once it was written, means that something was forgotten."""
DELETED = [key for key in GENERAL if key not in NEVER_DELETED]

SHORT = [f"short-{number}" for number in range(20)]
"""Values with a ttl of seconds, and some long-lived ones; touched."""
BRIEF = [f"brief-{number}" for number in range(20)]
"""Values with a ttl of seconds that are written so rarely that most of them expire, and read all the time by all clients."""

# These families are large. Most of their keys are not used for some seconds after an outage. The
# deciding zone still lacks the writes that it missed when such a key is next written.
LOCKS = [f"lock-{number}" for number in range(60)]
"""Mostly conditional writes."""
LISTS = [f"list-{number}" for number in range(25)]
"""Set, and appended to."""
FRONTS = [f"front-{number}" for number in range(10)]
"""Set, and prepended to."""
COUNTS = [f"count-{number}" for number in range(25)]
"""Only counted up, one by one."""
MIXED = [f"mixed-{number}" for number in range(12)]
"""Counted up and down, set to ints, deleted."""
GONE = [f"gone-{number}" for number in range(4)]
"""Absences that a loader found, and tombstones; touched. They never have a value."""

HOT = [*GENERAL, *SHORT]
"""The keys that most reads are of."""
KEYS = [*HOT, *BRIEF, *LOCKS, *LISTS, *FRONTS, *COUNTS, *MIXED, *GONE]


def family_of(key: str) -> str:
    """Return the family's name, such as `list`."""
    return key.partition("-")[0]


def is_list(key: str) -> bool:
    """Return True for keys whose values are lists of elements."""
    return family_of(key) in ("list", "front")


def is_counter(key: str) -> bool:
    """Return True for keys whose values are numbers."""
    return family_of(key) in ("count", "mixed")


def newest_element(key: str, elements: tuple[Value, ...]) -> Value:
    """Return the element that was added last: it names the value."""
    return elements[0] if family_of(key) == "front" else elements[-1]


class Reading:
    """A decoded value as the history records it."""

    __slots__ = ("elements", "number", "odd", "value")

    def __init__(self, key: str, decoded: object) -> None:
        self.value: Value | None = None
        self.number: int | None = None
        self.elements: tuple[Value, ...] | None = None
        self.odd = ""
        if is_counter(key):
            self._read_number(decoded)
        elif is_list(key):
            self.elements = read_elements(decoded)
            self.value = newest_element(key, self.elements)
        else:
            self.value = read_value(decoded)[1]

    def _read_number(self, decoded: object) -> None:
        if type(decoded) is int:
            self.number = decoded
            return
        self.odd = f"{type(decoded).__name__} {decoded!r}"
        text = decoded.decode("latin-1") if isinstance(decoded, bytes) else str(decoded)
        if text.strip().isdecimal():
            self.number = int(text)
        else:
            self.value = TORN
