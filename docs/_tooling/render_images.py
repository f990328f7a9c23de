"""Renders the pictures of the command line in docs/images, each from a real run.

The commands run in a pseudo terminal, on three zones of real servers under traffic. `make screenshots` calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from evcache import EVCache, NodeSettings
from evcache.testing import LocalZones

IMAGES = Path(__file__).parent / "images"
ZONES = {"eu-1a": 2, "eu-1b": 2, "eu-1c": 2}
NAMESPACE = "shop"
KEY = "user:42"
MOST_BYTES = 60_000

COLUMNS = {"top": 100, "explain": 124, "check": 124, "demo": 100}

# rich refers to fonts on another host. Readers of the docs must not load anything from there.
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# What rich sends before it draws a table again: return, erase the line, and then for each further line up and erase.
_REDRAWN = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)+")
_CURSOR = re.compile(r"\x1b\[\?25[lh]")


def main() -> None:
    """Render the pictures that the arguments name, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"pictures to render: {', '.join(COLUMNS)}; default: all")
    parser.add_argument("--backend", default="memcached", choices=["memcached", "docker"], help="kind of servers")
    parser.add_argument("--image", help="image for docker")
    arguments = parser.parse_args()
    names = arguments.names or list(COLUMNS)
    if unknown := set(names) - COLUMNS.keys():
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    if arguments.image is not None:
        os.environ["EVCACHE_TEST_IMAGE"] = arguments.image  # the demo starts its own servers
    if "demo" in names:
        save("demo", run("demo", ["--backend", arguments.backend, "--seconds", "9"], {}))
    if names == ["demo"]:
        return
    local = LocalZones(ZONES, backend=arguments.backend, image=arguments.image)
    with local.running() as zones:
        environment = {"EVCACHE_NODES": node_list(zones.zones), "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": NAMESPACE}
        if "explain" in names:
            asyncio.run(leave_a_zone_behind(zones.zones))
            save("explain", run("explain", [KEY], environment))
        zones.kill("eu-1c", node=1)
        if "check" in names:
            save("check", run("check", [], environment))
        if "top" in names:
            with traffic(with_labels(zones.zones)):
                save("top", run("top", ["--interval", "2", "--count", "3"], environment))


def with_labels(zones: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the zones with labels such as a1, which place keys alike in each run."""
    return {
        zone: [f"{zone[-1]}{number}@{address}" for number, address in enumerate(addresses, 1)]
        for zone, addresses in zones.items()
    }


def node_list(zones: dict[str, list[str]]) -> str:
    """Return the zones as a node list."""
    return ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in with_labels(zones).items())


def client(zones: dict[str, list[str]]) -> EVCache:
    """Return a client of these zones, which waits for slow machines."""
    settings = NodeSettings(connect_timeout=5)
    return EVCache(NAMESPACE, zones, local_zone="eu-1a", nodes=settings, read_timeout=2, write_timeout=5)


async def leave_a_zone_behind(zones: dict[str, list[str]]) -> None:
    """Write a key to all zones, and a newer value to all but the last one, as if that zone had been cut off."""
    labelled = with_labels(zones)
    async with client(labelled) as cache:
        await cache.set(KEY, {"name": "Ada"}, ttl=3600, consistency="all")
    async with client({zone: labelled[zone] for zone in list(labelled)[:-1]}) as cache:
        await cache.set(KEY, {"name": "Ada", "role": "admin"}, ttl=3600, consistency="all")


@contextlib.contextmanager
def traffic(zones: dict[str, list[str]]) -> Iterator[None]:
    """Read and write during the block: four reads for each write, some of keys that no zone has."""
    ended = threading.Event()

    async def call(cache: EVCache, number: int) -> None:
        for turn in range(10**9):
            if ended.is_set():
                return
            key = f"item:{(turn * 7 + number) % 500}"
            if turn % 5 == 0:
                await cache.set(key, "x" * 400, errors="miss")
            else:
                await cache.get(key if turn % 9 else f"missing:{turn}", errors="miss")
            await asyncio.sleep(0.002)

    async def work() -> None:
        async with client(zones) as cache:
            await asyncio.gather(*(call(cache, number) for number in range(8)))

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(name: str, arguments: Sequence[str], environment: dict[str, str]) -> tuple[str, str]:
    """Run a command in a terminal. Return the line that a user types, and what the terminal shows at the end."""
    terminal, screen = pty.openpty()
    termios.tcsetwinsize(screen, (60, COLUMNS[name]))
    process = subprocess.Popen(
        [sys.executable, "-c", "from evcache.cli import main; main()", name, *arguments],
        env={**os.environ, **environment, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS[name])},
        stdin=subprocess.DEVNULL,
        stdout=screen,
        stderr=screen,
    )
    os.close(screen)
    written = io.BytesIO()
    with (
        contextlib.suppress(OSError),
        os.fdopen(terminal, "rb", buffering=0) as output,
    ):  # Linux ends a closed terminal with EIO
        while chunk := output.read(65536):
            written.write(chunk)
    if process.wait() not in (0, 1):
        raise SystemExit(f"{name} failed with status {process.returncode}:\n{written.getvalue().decode()}")
    shown = _CURSOR.sub("", written.getvalue().decode())
    typed = " ".join(["$ evcache", name, *arguments])
    return typed, _REDRAWN.split(shown)[-1].replace("\r\n", "\n").strip("\n")


def save(name: str, shown: tuple[str, str]) -> None:
    """Write the picture of a terminal."""
    typed, text = shown
    console = Console(record=True, width=COLUMNS[name], file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(Text(typed, style="bold"))
    console.print(Text.from_ansi(text))
    picture = console.export_svg(title=f"evcache {name}", unique_id=f"evcache-{name}")
    picture = _FONT_FACE.sub("", picture).replace("Fira Code, monospace", _FONT).replace("Fira Code", _FONT)
    if "url(http" in picture.replace('"', ""):
        raise SystemExit(f"{name}: the picture refers to another host")
    if len(picture.encode()) > MOST_BYTES:
        raise SystemExit(f"{name}: the picture has {len(picture.encode())} bytes, over {MOST_BYTES}")
    (IMAGES / f"{name}.svg").write_text(picture, "utf-8")
    print(f"{IMAGES / name}.svg: {len(picture.encode())} bytes")


if __name__ == "__main__":
    main()
