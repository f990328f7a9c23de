"""Contract of LocalZones on containers and on each memcached binary, with errors of the docker engine."""

import gc
import os
import shutil
import subprocess

import pytest

from evcache.testing import BackendUnavailable, LocalZones
from evcache.testing.backends.docker import LABEL
from tests.contracts.local_zones_contract import LocalZonesContract, run


def containers():
    """Return the containers of this process, running or not."""
    if shutil.which("docker") is None:
        return []
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={os.getpid()}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


@pytest.fixture
def make(each_kind):
    return each_kind.local_zones


class TestLocalZones(LocalZonesContract):
    cancellations = (0, 1, 3, 30)  # a start of containers takes seconds, and is not interrupted

    def other_servers(self):
        return containers()


@pytest.mark.docker
def test_missing_image_is_named_by_the_error(servers):
    if servers.best.backend != "docker":
        pytest.skip("no containers here")

    async def main():
        before = containers()
        with pytest.raises(BackendUnavailable, match="evcache-test/no-such-image"):
            await LocalZones(backend="docker", image="evcache-test/no-such-image:1").start()
        assert containers() == before

    run(main)


@pytest.mark.docker
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of the docker package, after a failed connect
def test_missing_engine_is_an_error(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/docker.sock")
    with pytest.raises(BackendUnavailable, match="no docker engine answers"):
        run(LocalZones(backend="docker").start)
    gc.collect()  # the error and its sockets are a cycle, whose collection would warn in a later test
