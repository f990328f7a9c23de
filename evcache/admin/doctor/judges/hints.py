"""Judge of the disk on which a service keeps its hints."""

from __future__ import annotations

from evcache.admin.doctor.catalog import (
    HINTS_DISK_FULL,
    HINTS_DISK_LOW,
    HINTS_NO_FOLDER,
    HINTS_NO_JOURNAL,
    HINTS_READ_ONLY,
    HINTS_UNWRITABLE,
)
from evcache.admin.doctor.facts import Facts, HintsDisk
from evcache.admin.doctor.findings import Finding, Subject, ok
from evcache.replication.handoff.hints import Hints

# The file and its write-ahead log may each hold all hints.
NEEDED_BYTES = 2 * Hints().max_bytes


def judge(facts: Facts) -> list[Finding]:
    """Return the fault of the disk. There is no finding without a file."""
    disk = facts.hints
    if disk is None:
        return []
    return [_fault(disk) or ok(Subject.HINTS, f"{disk.path} can be written{_free(disk)}")]


def _fault(disk: HintsDisk) -> Finding | None:
    """Return the first fault: those behind it follow from it."""
    if not disk.has_folder:
        return HINTS_NO_FOLDER.found(f"no folder for hints: {disk.path}")
    if disk.is_foreign:
        return HINTS_NO_JOURNAL.found(f"no journal of hints: {disk.path} is something else")
    if disk.is_read_only:
        return HINTS_READ_ONLY.found(f"file system of hints read-only: {disk.path}")
    if disk.is_full:
        return HINTS_DISK_FULL.found(f"disk of hints full: {disk.path}: {disk.write_error}")
    if disk.write_error is not None:
        return HINTS_UNWRITABLE.found(f"file of hints not writable: {disk.path}: {disk.write_error}")
    if disk.free_bytes is not None and disk.free_bytes < NEEDED_BYTES:
        return HINTS_DISK_LOW.found(f"disk of hints low: {disk.path}{_free(disk)}, hints may take {NEEDED_BYTES:,}")
    return None


def _free(disk: HintsDisk) -> str:
    return "" if disk.free_bytes is None else f", {disk.free_bytes:,} bytes free"
