"""The command line `evcache`.

It needs click and rich, which the extra `cli` installs. Only this module works without them.
"""

from __future__ import annotations

import sys

# Modules of the extra `cli`. Any other missing module means a broken installation, whose traceback is shown.
EXTRA_MODULES = frozenset({"click", "rich"})
EXTRA_MISSING_STATUS = 2  # the status of unusable options
INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Run the command of `sys.argv`, and exit with its status. Without the extra, print one line and exit with 2."""
    try:
        # Imported here, because a missing extra must become a message.
        from evcache.cli.commands import evcache  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        sys.stderr.write(f"evcache: missing module {error.name}: run pip install evcache[cli]\n")
        raise SystemExit(EXTRA_MISSING_STATUS) from None
    except KeyboardInterrupt:  # importing takes long enough to be interrupted
        raise SystemExit(INTERRUPTED_STATUS) from None
    evcache()
