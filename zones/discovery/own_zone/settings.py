"""Zone in an environment variable, or in a file of a Kubernetes downward API volume."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from evcache.zones.discovery.environment import ZONE_VARIABLE
from evcache.zones.discovery.local_zone import AUTO
from evcache.zones.discovery.own_zone.names import NoZone, UnusableSetting, zone_name

FILE_VARIABLE = "EVCACHE_ZONE_FILE"
"""Environment variable with the path of a file that contains the zone, or the labels of the pod."""

# The label of a node that names its zone. Kubernetes copies it to the labels of each pod since version 1.35 (KEP-4742).
ZONE_LABEL = "topology.kubernetes.io/zone"

# Directory of the downward API volume in the examples of Kubernetes, and the files of it that are read.
PODINFO = "/etc/podinfo"
PODINFO_FILES = ("zone", "labels")

# The labels of a pod have at most a few kilobytes.
MAX_FILE_BYTES = 64 * 1024

# The kubelet writes a label as Go's `%v=%q`. A value has no characters that need an escape.
_LABEL = re.compile(rf'^{re.escape(ZONE_LABEL)}="([^"]*)"$', re.MULTILINE)


def read_settings(
    environment: Mapping[str, str], podinfo: str | os.PathLike[str] = PODINFO
) -> Iterator[tuple[str, str | NoZone]]:
    """Yield each source with its zone or the reason that it has none, in the order of precedence.

    Args:
        environment: Environment variables.
        podinfo: Directory of the downward API volume.
    """
    yield ZONE_VARIABLE, _of_variable(environment)
    path = environment.get(FILE_VARIABLE, "").strip()
    if path:
        # The named file takes the place of the usual ones. A wrong path must not select another file.
        zone = _of_file(Path(path))
        if isinstance(zone, NoZone):
            yield FILE_VARIABLE, UnusableSetting(f"{path}: {zone}")
        else:
            yield path, zone
        return
    for name in PODINFO_FILES:
        file = Path(podinfo, name)
        yield str(file), _of_file(file)


def _of_variable(environment: Mapping[str, str]) -> str | NoZone:
    text = environment.get(ZONE_VARIABLE, "")
    if text.strip() == AUTO:
        return NoZone("it asks for this search")
    if not text.strip():
        # Kubernetes sets the variable to an empty text if it refers to a label that the pod does not have.
        return NoZone("not set")
    try:
        return zone_name(text)
    except NoZone as error:
        return UnusableSetting(str(error))


def _of_file(path: Path) -> str | NoZone:
    try:
        if not path.exists():
            return NoZone("no such file")
        if not path.is_file():
            return NoZone("not a regular file")  # opening a pipe would block the event loop
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return NoZone((error.strerror or str(error)).lower())
    label = _LABEL.search(text)
    if label is None and "=" in text:
        return NoZone(f"no label {ZONE_LABEL}")
    try:
        return zone_name(text if label is None else label[1])
    except NoZone as error:
        return error
