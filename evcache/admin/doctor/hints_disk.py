"""Look at the disk of a hint file. It writes a small file next to it and removes it, because only a write shows a quota."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from evcache.admin.doctor.facts import HintsDisk

# A transaction of the hint file writes at least one page of 4 KiB to its log, and a page for each further hint.
PROBE_BYTES = 64 * 1024

_SQLITE = b"SQLite format 3\0"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def look_at(path: str) -> HintsDisk:
    """Return the state of the disk. It blocks. The file itself is not opened for writing, since a service may use it."""
    file = Path(path)
    folder = file.parent
    if not folder.is_dir():
        return HintsDisk(path, has_folder=False)
    if _is_foreign(file):
        return HintsDisk(path, is_foreign=True)
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return HintsDisk(path, is_read_only=True)
    error = _write_error(folder)
    if error is None and file.exists() and not os.access(file, os.W_OK):
        error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return HintsDisk(
        path,
        free_bytes=disk.f_bavail * disk.f_frsize,
        write_error=None if error is None else error.strerror or type(error).__name__,
        is_full=error is not None and error.errno in _FULL,
    )


def _is_foreign(file: Path) -> bool:
    if file.exists() and not file.is_file():  # reading a pipe or a device could block
        return True
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_SQLITE))
    except OSError:  # there is no file yet, or it cannot be read, which the write shows
        return False
    return start not in (b"", _SQLITE)


def _write_error(folder: Path) -> OSError | None:
    """Return the error of writing a small file, or None. The file has no name where the system allows it."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".evcache-doctor-") as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error
    return None
