"""Where the servers of the integration tests come from: containers, memcached processes, or FakeMemcached."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evcache.testing import LocalZones
from evcache.testing.local_zones import BackendName

OFFICIAL_IMAGE = "memcached:1.6"
BUILT_IMAGE = "evcache-test/memcached:1.6"  # by image/build.sh
BUILD_SCRIPT = Path(__file__).with_name("image") / "build.sh"

BACKEND_VARIABLE = "EVCACHE_TEST_BACKEND"  # docker, memcached or embedded: that one, or the session fails
IMAGE_VARIABLE = "EVCACHE_TEST_IMAGE"
BINARIES_VARIABLE = "EVCACHE_MEMCACHED"  # a list like PATH: the suites run on each

ENGINE_SECONDS = 15
PULL_SECONDS = 20

THREE_ZONES: Mapping[str, int] = {"eu-1a": 2, "eu-1b": 2, "eu-1c": 2}


class NoServers(Exception):
    """Requested servers are unavailable; the text gives the reason."""


@dataclass(frozen=True)
class ServerKind:
    """One way to start servers."""

    backend: BackendName
    source: str = ""  # the image, or the binary

    def local_zones(
        self, zones: Mapping[str, int] = THREE_ZONES, extra_args: Sequence[str] = (), *, own_addresses: bool = False
    ) -> LocalZones:
        """Return zones of this kind, not started. `extra_args`: command line options of the servers."""
        arguments = {"image": self.source} if self.backend == "docker" else {"binary": self.source or None}
        return LocalZones(zones, backend=self.backend, extra_args=extra_args, own_addresses=own_addresses, **arguments)

    def __str__(self) -> str:
        return f"{self.backend}-{self.source.rpartition('/')[2]}" if self.source else self.backend


@dataclass(frozen=True)
class Servers:
    """Every kind that can be started here, best first, and the report for the user who runs the tests."""

    kinds: list[ServerKind]
    report: list[str]

    @property
    def best(self) -> ServerKind:
        """The one for tests that run on one kind."""
        return self.kinds[0]


def find_servers(environ: Mapping[str, str] = os.environ) -> Servers:
    """Look what there is. Pulls an image when none is here, which takes up to 20 s.

    Raises NoServers if EVCACHE_TEST_BACKEND is unavailable, or if CI is set and there are no containers. Tests that quietly
    run on fewer kinds of servers would look like tests that pass.
    """
    wanted = environ.get(BACKEND_VARIABLE)
    if wanted not in (None, "", "docker", "memcached", "embedded"):
        raise NoServers(f"{BACKEND_VARIABLE} is {wanted!r}, and not docker, memcached or embedded")
    kinds: list[ServerKind] = []
    report: list[str] = []
    if wanted in (None, "", "docker"):
        image, how = _find_image(environ)
        report.append(f"containers: {how}")
        if image is not None:
            kinds.append(ServerKind("docker", image))
        elif wanted or environ.get("CI"):
            raise NoServers(f"containers are required, as {BACKEND_VARIABLE}=docker or CI is set: {how}")
    if wanted in (None, "", "memcached"):
        binaries = _find_binaries(environ)
        report.append(f"processes: {', '.join(binaries) or 'no memcached on PATH or in ' + BINARIES_VARIABLE}")
        kinds += [ServerKind("memcached", binary) for binary in binaries]
        if wanted and not binaries:
            raise NoServers(f"{BACKEND_VARIABLE} is memcached, and none is on PATH or in {BINARIES_VARIABLE}")
    if not kinds:
        kinds.append(ServerKind("embedded"))
        report.append("EMBEDDED SERVERS ONLY: no test meets a real memcached")
    report.append(f"tests of one kind of server run on: {kinds[0]}")
    return Servers(kinds, report)


def _find_image(environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The image to use, None without one, and how that came about."""
    if shutil.which("docker") is None:
        return None, "none, docker is not installed"
    answers, said = _docker("info", "--format", "{{.ServerVersion}}", seconds=ENGINE_SECONDS)
    if not answers:
        return None, f"none, no docker engine answers ({said})"
    engine = f"docker {said}"
    if chosen := environ.get(IMAGE_VARIABLE):
        return chosen, f"{engine}, image {chosen} as {IMAGE_VARIABLE} says"
    for image in (OFFICIAL_IMAGE, BUILT_IMAGE):
        if _docker("image", "inspect", image, seconds=ENGINE_SECONDS)[0]:
            return image, f"{engine}, image {image}, which is here"
    pulled, said = _docker("pull", "--quiet", OFFICIAL_IMAGE, seconds=PULL_SECONDS)
    if pulled:
        return OFFICIAL_IMAGE, f"{engine}, image {OFFICIAL_IMAGE}, pulled"
    return None, f"none, {OFFICIAL_IMAGE} can't be pulled ({said}); {BUILD_SCRIPT} builds one from packages"


def _docker(*arguments: str, seconds: float) -> tuple[bool, str]:
    """Whether a docker command succeeded, and the last line that it said."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {seconds} s"
    lines = done.stdout.strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else ""


def _find_binaries(environ: Mapping[str, str]) -> list[str]:
    named = [name for name in environ.get(BINARIES_VARIABLE, "").split(os.pathsep) if name]
    found = []
    for name in named or ["memcached"]:
        path = shutil.which(name, path=environ.get("PATH"))
        if path is not None:
            found.append(path)
        elif named:
            raise NoServers(f"{name}, of {BINARIES_VARIABLE}, can't be run")
    return found
