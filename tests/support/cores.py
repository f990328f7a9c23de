"""Both forms of the core, for tests that hold on each."""

from evcache.zones.transport.core import selected
from evcache.zones.transport.core.selected import COMPILED, PURE

CORES = [PURE] if COMPILED is None else [PURE, COMPILED]


# Each transport on each core. No core takes part in the classic protocol.
TRANSPORTS = [*(("meta", core) for core in CORES), ("classic", PURE)]


def name_of(transport):
    """Return the identifier of a test with one of `TRANSPORTS`."""
    name, core = transport
    return f"{name} {core.name}" if name == "meta" else name


class running:
    """Context in which new connections run on this core."""

    def __init__(self, core):
        self.core = core

    def __enter__(self):
        self.before, selected.SELECTED = selected.SELECTED, self.core
        return self.core

    def __exit__(self, *_):
        selected.SELECTED = self.before
