"""Command line of `python -m evcache`, the same as that of the command `evcache`."""

from __future__ import annotations

from evcache.cli import main

if __name__ == "__main__":
    main()
