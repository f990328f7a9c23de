"""Build hook: adds the link `evcache/zones` to the sdist, so that an unpacked sdist has the files of a checkout.

hatchling follows a link to a folder, and packs that folder only once. It packs a link to a file as a link.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LINK = "evcache/zones"
TARGET = "../zones"


class LinkBuildHook(BuildHookInterface):
    """Packs the link from a scratch folder, where its target is a file."""

    PLUGIN_NAME = "custom"
    _scratch: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the link.

        Args:
            version: "standard".
            build_data: Contents of the sdist, see hatchling's documentation.
        """
        del version
        self._scratch = Path(tempfile.mkdtemp(prefix="evcache-link-"))
        link = self._scratch / LINK
        link.parent.mkdir()
        link.symlink_to(TARGET)
        (link.parent / TARGET).touch()
        build_data["force_include"][str(link)] = LINK

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the scratch folder. The sdist has been written."""
        del version, build_data, artifact_path
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
