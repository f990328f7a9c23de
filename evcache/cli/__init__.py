"""The command line, `evcache`. It needs click and rich, from the extra `cli`; this module alone does without them."""

from __future__ import annotations

import sys

# What the extra `cli` installs. Any other module that is missing is a broken installation, and is reported as one.
EXTRA_MODULES = frozenset({"click", "rich"})
EXTRA_MISSING_STATUS = 2  # the command can't be used as it is: the same status as for wrong options
INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its status: 2, with one line, when the extra is missing."""
    try:
        # Not at the top: this is the one place that can say what to install.
        from evcache.cli.commands import evcache  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        sys.stderr.write(f"evcache: the command line needs {error.name}: pip install evcache[cli]\n")
        raise SystemExit(EXTRA_MISSING_STATUS) from None
    except KeyboardInterrupt:  # importing takes long enough to be interrupted
        raise SystemExit(INTERRUPTED_STATUS) from None
    evcache()
