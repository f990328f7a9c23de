"""Counts what a piece of code does, in things that are the same on every machine and on every run: no seconds.

A profile function counts calls and builtins, and a trace function counts instructions. They have separate runs, because each
would count the other. What the fake servers do, and the tests themselves, is not counted.
"""

import asyncio
import dataclasses
import gc
import sys
import tracemalloc
from pathlib import Path

import evcache
import evcache.zones

OURS = tuple(f"{Path(package.__file__).parent}/" for package in (evcache, evcache.zones))
# Servers in memory and tests stand in for a network and a service, which would cost this process nothing.
NOT_COUNTED = (*(f"{package}testing/" for package in OURS), f"{Path(__file__).parents[1]}/")

Code = type(sys._getframe().f_code)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one operation costs, on average."""

    calls: float
    """Of functions in Python of the SDK; each time that a coroutine goes on is one."""
    library: float
    """The same, of everything below it and around it: asyncio, its loop included."""
    builtins: float
    """Calls of functions in C by functions of the SDK."""
    instructions: float
    """Of the interpreter, in functions of the SDK."""
    turns: float
    """Of the event loop."""
    packets: float
    """Written to servers: a system call each."""
    bytes: float
    """Written to servers."""
    garbage: float
    """Objects that are left to the garbage collector, which stops the loop for them: those of cycles."""
    pending: float | None
    """Blocks that it holds while no server has answered; None: it asks none."""
    pending_bytes: float | None
    """Their size."""


class _Kinds(dict):
    """Whose a function is, by its code: `ours`, `library`, or `not counted`."""

    def __missing__(self, code):
        name = code.co_filename
        kind = "not counted" if name.startswith(NOT_COUNTED) else "ours" if name.startswith(OURS) else "library"
        self[code] = kind
        return kind


class Calls:
    """While it is entered, counts calls in this thread."""

    def __init__(self):
        self.ours = self.library = self.builtins = self.turns = 0
        self._kinds = _Kinds()

    def __enter__(self):
        self._before = sys.getprofile()
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_):
        sys.setprofile(self._before)

    def _profile(self, frame, event, _):
        kind = self._kinds[frame.f_code]
        if event == "call":
            if kind == "ours":
                self.ours += 1
            elif kind == "library":
                self.library += not self._below_a_server(frame)
                self.turns += frame.f_code.co_name == "_run_once"
        elif event == "c_call" and kind == "ours":
            self.builtins += 1

    def _below_a_server(self, frame):
        while self._kinds[frame.f_code] == "library":
            frame = frame.f_back
            if frame is None:
                return False
        # The root of everything is a test too: what is below it is the loop, whose callbacks are counted.
        return any(frame.f_code.co_filename.startswith(place) for place in NOT_COUNTED[:-1])


class Instructions:
    """While it is entered, counts the interpreter's instructions in functions of the SDK, in this thread."""

    def __init__(self):
        self.count = 0
        self._kinds = _Kinds()

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _enter(self, frame, _event, _arg):
        if self._kinds[frame.f_code] != "ours":
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._step

    def _step(self, _frame, event, _arg):
        self.count += event == "opcode"
        return self._step


async def garbage(operation, times):
    """Objects that the garbage collector finds after an operation, on average."""
    gc.collect()
    for _ in range(times):
        await operation()
    return gc.collect() / times


async def held_while_pending(zones, operation, times):
    """Return the SDK's blocks and bytes for each of `times` operations that wait while no server answers."""
    zones.pause(*zones.names)
    gc.collect()  # also empties the lists of freed objects: what is taken from those is not traced
    tracemalloc.start()
    try:
        before = _traced()
        tasks = [asyncio.ensure_future(operation()) for _ in range(times)]
        for _ in range(3):  # each has begun, and sent what it sends first
            await asyncio.sleep(0)
        after = _traced()
        assert not any(task.done() for task in tasks)
    finally:
        tracemalloc.stop()
        zones.resume(*zones.names)
    await asyncio.gather(*tasks)
    return tuple((late - early) / times for early, late in zip(before, after, strict=True))


def _traced():
    filters = [tracemalloc.Filter(inclusive=True, filename_pattern=f"{place}*") for place in OURS]
    filters += [tracemalloc.Filter(inclusive=False, filename_pattern=f"{place}*") for place in NOT_COUNTED]
    found = tracemalloc.take_snapshot().filter_traces(filters).statistics("filename")
    return sum(one.count for one in found), sum(one.size for one in found)
