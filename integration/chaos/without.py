"""Switches that turn single fixes of the product off, to show that a run finds the defect that each of them is for.

`FIXES` is a table of names. Each entry is a callable that patches the product and returns a function that undoes it. A patch
names its target as `module:attribute` or `module:Class.method`, and makes the replacement out of the original. To follow a
function that was renamed or split, change its entry in the table. A target that does not exist raises `NotInProduct`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from integration.chaos import former
from integration.chaos.promises import Promise

Undo = Callable[[], None]


class NotInProduct(LookupError):
    """A fix cannot be switched off: the product has no function of the name that the table gives."""


class Patch(NamedTuple):
    """One replaced function or constant."""

    target: str
    replace: Callable[[Any], Any]
    """Makes the replacement out of the original."""

    def apply(self) -> Undo:
        """Replace the target, wherever it was imported to, and return a function that undoes it."""
        owner, name = _find(self.target)
        original = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
        replacement = self.replace(original)
        places = [owner]
        if not isinstance(owner, type):  # `from module import name` has made copies
            places += [
                module for module in _product_modules() if module is not owner and module.__dict__.get(name) is original
            ]
        for place in places:
            setattr(place, name, replacement)

        def undo() -> None:
            for place in places:
                setattr(place, name, original)

        return undo


@dataclass(frozen=True)
class Fix:
    """One fix that can be switched off."""

    what: str
    """Behaviour of the product with the fix."""
    patches: tuple[Patch, ...]
    breaks: frozenset[Promise] = frozenset()
    """Promises of which a run without the fix breaks at least one. If empty, no run shows the defect."""

    def __call__(self) -> Undo:
        """Switch it off. Raises `NotInProduct`, with nothing changed."""
        with ExitStack() as stack:
            for patch in self.patches:
                stack.callback(patch.apply())
            return stack.pop_all().close


@contextmanager
def without(names: Iterable[str]) -> Iterator[None]:
    """Run with these fixes switched off. Raises `NotInProduct`."""
    with ExitStack() as stack:
        for name in names:
            stack.callback(FIXES[name]())
        yield


def _find(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for each in owners:
            owner = getattr(owner, each)
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise NotInProduct(f"the product has no {target}: change its entry in {__name__}") from error
    return owner, name


def _product_modules() -> list[Any]:
    return [module for name, module in sys.modules.items() if name.partition(".")[0] == "evcache" and module]


def _does(result: object) -> Callable[[Any], Callable[..., object]]:
    """Replace a function by one that does nothing and returns this."""
    return lambda _: lambda *_arguments, **_named: result


_COUNTER_PROMISES = frozenset(
    {Promise.COUNTED, Promise.COUNT_READ, Promise.COUNTER_DELETED, Promise.CONVERGENCE, Promise.INTEGER}
)

FIXES: Mapping[str, Fix] = {
    "copy-ttl": Fix(
        "a copy does not live longer than the original",
        (Patch("evcache.values.ttl:exptime_of_copy", former.exptime_of_copy),),
        frozenset({Promise.TTL, Promise.EQUAL_TTL}),
    ),
    "latest-state": Fix(
        "conditional writes are decided on the latest version that a reachable zone holds",
        (Patch("evcache.writes.conditional.coordinator:Coordinator.look", former.look),),
        frozenset({Promise.COMPARE, Promise.REFUSAL, Promise.APPENDED, Promise.COUNTED, Promise.OWN_WRITES}),
    ),
    "counter-versions": Fix(
        "counters have versions",
        (Patch("evcache.writes.conditional.increment:Increment.decide", former.count),),
        _COUNTER_PROMISES,
    ),
    "touch-values": Fix(
        "touch looks before it touches",
        (Patch("evcache.replication.commands.touch:TouchCommand.peek_and_apply", former.settle_touch),),
        frozenset({Promise.TOUCH}),
    ),
    "delete-hints": Fix(  # other clients of a run know of the delete, and their reads repair the zone
        "the hint of a delete never expires",
        (
            Patch("evcache.replication.handoff.hinted_handoff:HintedHandoff._put", former.put_hint),
            Patch("evcache.replication.handoff.hinted_handoff:HintedHandoff._deliver", former.deliver_delete),
        ),
    ),
    "lapsed-hints": Fix(  # a client that knew the short-lived value does not believe the older one either way
        "a hint whose item has expired is delivered as a tombstone",
        (Patch("evcache.replication.handoff.hinted_handoff:HintedHandoff._deliver", former.deliver),),
    ),
    "resend": Fix(
        "a write that an unseen version superseded is sent again with a newer one",
        (Patch("evcache.writes.sender:RetriedWrite._send_again", _does(False)),),
        frozenset({Promise.REAL_TIME, Promise.COUNTER_DELETED}),
    ),
    "heard-versions": Fix(  # clients of a run have no invalidation channel
        "versions that other clients announced are remembered",
        (Patch("evcache.replication.seen_versions:SeenVersions.note_from_peer", _does(None)),),
    ),
    "sampling": Fix(  # hints and reads of several zones find what sampling would, in a run of minutes
        "keys of bulk reads are sampled as single ones are",
        (Patch("evcache.reads.context:ReadContext.count_served", _does(None)),),
    ),
    "repair-announced": Fix(  # clients of a run have no near cache
        "a repair is announced",
        (Patch("evcache.replication.repair.read_repair:ReadRepair._store_copy", former.store_copy),),
    ),
    "one-copy-store": Fix(  # saves bytes; every promise holds without it
        "larger values travel once in a guarded store",
        (Patch("evcache.zones.transport.core.selected:SELECTED", former.core_that_sends_three_copies),),
    ),
}
"""Fixes by name."""
