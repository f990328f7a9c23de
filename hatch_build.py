"""Build hook: compiles the core of the transport where there is a C compiler, and builds a package without it elsewhere.

`EVCACHE_PURE=1` leaves the core out. `EVCACHE_REQUIRE_CORE=1` makes a core that cannot be built an error.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "evcache.zones.transport.core._compiled"
FOLDER = Path("zones", "transport", "core")
SOURCE = FOLDER / "_compiled.pyx"
MODULE_FILE = f"_compiled{sysconfig.get_config_var('EXT_SUFFIX')}"


class CoreBuildHook(BuildHookInterface):
    """Compiles the core into a wheel, or into the checkout for an editable install."""

    PLUGIN_NAME = "custom"
    _scratch: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the core, and mark the wheel as one of this interpreter.

        Args:
            version: "standard", or "editable".
            build_data: What goes into the wheel, see hatchling's documentation.
        """
        in_place = Path(self.root) / FOLDER / MODULE_FILE
        if version == "editable":
            in_place.unlink(missing_ok=True)  # an earlier build. Without a new one, it would run with newer Python code
        is_required = os.environ.get("EVCACHE_REQUIRE_CORE", "") not in {"", "0"}
        if os.environ.get("EVCACHE_PURE", "") not in {"", "0"}:
            if is_required:
                raise ValueError(
                    "EVCACHE_PURE leaves the compiled core out, and EVCACHE_REQUIRE_CORE requires it: set one of them"
                )
            return
        self._scratch = tempfile.mkdtemp(prefix="evcache-core-")
        try:
            built = compile_core(Path(self.root), Path(self._scratch))
        except (Exception, SystemExit) as error:  # setuptools ends the process without a compiler
            shutil.rmtree(self._scratch, ignore_errors=True)
            if is_required:
                raise
            self.app.display_warning(f"evcache is built without its compiled core, which is slower: {error}")
            return
        if version == "editable":
            shutil.copyfile(built, in_place)
        else:
            build_data["force_include"][str(built)] = f"evcache/{FOLDER.as_posix()}/{MODULE_FILE}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the files of the compiler. The wheel has been written."""
        del version, build_data, artifact_path
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def compile_core(root: Path, scratch: Path) -> Path:
    """Compile the core and return the path of the extension module.

    Args:
        root: The checkout, or the unpacked sdist.
        scratch: Folder for all files that the compiler makes.
    """
    from Cython.Build import cythonize  # noqa: PLC0415  # a build without them is a build without a core
    from setuptools import Distribution, Extension  # noqa: PLC0415

    # Without debug information the module has a tenth of the size.
    extension = Extension(MODULE, [str(root / SOURCE)], extra_compile_args=["-g0"])
    cache = os.environ.get("CYTHON_CACHE_DIR") or False  # Cython reads the variable only if its caller enables the cache
    modules = cythonize([extension], build_dir=str(scratch / "c"), include_path=[str(root)], cache=cache, quiet=True)
    distribution = Distribution({"name": "evcache", "ext_modules": modules})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = str(scratch / "lib")
    command.build_temp = str(scratch / "temp")
    command.ensure_finalized()
    command.run()
    return scratch / "lib" / Path(*MODULE.split(".")).with_name(MODULE_FILE)
