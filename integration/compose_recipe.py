"""The Compose recipe on this machine: run by Compose, or node by node with the docker command."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.recipes import COMPOSE_FILE, memcached_services

START_SECONDS = 60


def find_compose() -> list[str] | None:
    """Return the command of Compose, or None if this machine has none."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return command
    return None


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a docker command."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check, timeout=START_SECONDS)


@contextmanager
def composed(command: list[str], image: str) -> Iterator[dict[str, Any]]:
    """Run the whole file. Return the services of nodes by name, with their ports, and with their container as `id`."""
    variables = {f"{name.upper().replace('-', '_')}_PORT": str(_free_port()) for name in memcached_services()}
    variables["MEMCACHED_IMAGE"] = image
    project = [*command, "-p", f"evcache-{uuid.uuid4().hex[:8]}", "-f", str(COMPOSE_FILE)]

    def run(*arguments: str) -> str:
        environment = os.environ | variables
        done = subprocess.run(
            [*project, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("up", "-d")
        services = memcached_services(variables)
        for name, service in services.items():
            service["id"] = run("ps", "-q", name).strip()
            service["port"] = int(service["ports"][0].split(":")[1])
        yield services
    finally:
        run("down", "--timeout", "5")


@contextmanager
def one_node(image: str) -> Iterator[dict[str, Any]]:
    """Run one node of the file with the docker command. Return its service, with its port, and with its container as `id`."""
    port = _free_port()
    service = memcached_services({"MEMCACHED_IMAGE": image, "EU_1A_0_PORT": str(port)})["eu-1a-0"]
    service["port"] = port
    service["id"] = docker("run", "--detach", *docker_options(service), service["image"], *service["command"]).stdout.strip()
    try:
        yield service
    finally:
        docker("rm", "--force", service["id"])


def docker_options(service: dict[str, Any]) -> list[str]:
    """Return the options of `docker run` for a service of the file. A key without a translation is an error."""
    check = service["healthcheck"]
    assert check["test"][:3] == ["CMD", "bash", "-c"]  # docker's own checks run in the image's shell
    rest = service.keys() - {"command", "healthcheck", "image", "port", "restart", "stop_grace_period"}
    translated = {
        "user": lambda user: ["--user", user],
        "read_only": lambda on: ["--read-only"] if on else [],
        "cap_drop": lambda names: [f"--cap-drop={name}" for name in names],
        "security_opt": lambda options: [f"--security-opt={option}" for option in options],
        "ulimits": lambda limits: [f"--ulimit={name}={limit}" for name, limit in limits.items()],
        "mem_limit": lambda size: ["--memory", size],
        "ports": lambda ports: [f"--publish={port}" for port in ports],
    }
    return [option for key in sorted(rest) for option in translated[key](service[key])]


def check_health(service: dict[str, Any]) -> bool:
    """Run the command of the health check in the container, and return True if it succeeds."""
    return docker("exec", service["id"], *service["healthcheck"]["test"][1:], check=False).returncode == 0


def wait_until_healthy(services: dict[str, dict[str, Any]]) -> None:
    """Wait until docker's own checks have found each container healthy."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        found = json.loads(docker("inspect", *(service["id"] for service in services.values())).stdout)
        states = [container["State"]["Health"]["Status"] for container in found]
        if set(states) == {"healthy"}:
            return
        assert time.monotonic() < deadline, states
        time.sleep(0.2)


def read_stats(port: int, group: str = "") -> dict[str, str]:
    """Return the reply of a server to `stats`, as texts by name."""
    deadline = time.monotonic() + START_SECONDS
    reply = b""
    while not reply.endswith(b"END\r\n"):
        assert time.monotonic() < deadline, reply
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(f"stats {group}".strip().encode() + b"\r\n")
                reply = b""
                while not reply.endswith(b"END\r\n") and (received := connection.recv(65536)):
                    reply += received
        except OSError:  # the server is starting
            time.sleep(0.05)
    lines = [line.split(" ", 2) for line in reply.decode().splitlines() if line.startswith("STAT ")]
    return {line[1]: line[2] for line in lines}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
