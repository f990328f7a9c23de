"""Processes that ask for one key at the same moment: the child program, and `Crew`, by which a test runs several of them.

A child reads jobs from standard input, a line of JSON each, and answers each with a line. Loaders append their events to a
shared file, a line `<event> <process id>` each. They wait for files that the test creates. The test therefore decides the
order of events, and no assertion depends on the speed of the machine.
"""

import asyncio
import contextlib
import itertools
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from evcache import EVCache, LoadPolicy
from integration.patience import LOYAL_NODES, PATIENT_CALLS, PATIENT_SECONDS

START_SECONDS = 0.1  # from when a job is sent until its callers ask, so that all processes have read theirs
ANSWER_SECONDS = 2 * PATIENT_SECONDS
LOOK_SECONDS = 0.005  # between looks whether a file is there


class SourceDown(Exception):
    """Error that a loader raises on the order of the test."""


_numbers = itertools.count()  # of the values that this process has made, so that no two are the same

# What a child does.


async def storm(cache, job):
    """Many callers of get_or_load for one key at once; what they got, and how long they waited."""
    loading, start = asyncio.Event(), asyncio.Event()

    def note(event):
        handle = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{event} {os.getpid()}\n".encode())
        os.close(handle)

    async def load():
        note("began")
        loading.set()
        try:
            await asyncio.sleep(job["load_seconds"])
            await appears(job.get("gate"))
        except asyncio.CancelledError:
            note("cancelled")
            raise
        if job.get("fails"):
            note("failed")
            raise SourceDown
        note("loaded")
        return f"{os.getpid()}-{next(_numbers)}"

    async def caller():
        await start.wait()
        began = time.monotonic()
        value = None
        try:
            policy = LoadPolicy(**job.get("policy", {}))
            value = await cache.get_or_load("key", load, ttl=job.get("ttl", 60), policy=policy, timeout=job.get("timeout"))
            return "values", value, time.monotonic() - began
        except (Exception, asyncio.CancelledError) as error:
            return "errors", type(error).__name__, time.monotonic() - began

    callers = [asyncio.create_task(caller()) for _ in range(job["callers"])]
    await asyncio.sleep(max(0.0, job["at"] - time.monotonic()))
    start.set()
    if (who := job.get("cancel")) is not None:
        await loading.wait()
        await appears(job["cancel_gate"])
        for task in callers[: job["callers"] if who == "all" else 1]:
            task.cancel()
    ended = await asyncio.gather(*callers)
    waits = sorted(seconds for _, _, seconds in ended)
    answer = {kind: Counter(got for which, got, _ in ended if which == kind) for kind in ("values", "errors")}
    # A later job must not meet leftovers of this one. Loads without a waiting caller may go on.
    return answer | {"waited": [waits[0], statistics.median(waits), waits[-1]]}


async def call(cache, job):
    """One operation of the client, on the key."""
    result = await getattr(cache, job["method"])("key", *job.get("arguments", ()), **job.get("options", {}))
    return {"result": result if isinstance(result, str | int | None) else bool(result)}


async def appears(path):
    while path is not None and not Path(path).exists():
        await asyncio.sleep(LOOK_SECONDS)


async def child():
    """Do jobs until there are no more; the client is kept as long as jobs want the same."""
    cache, wanted = None, None
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        if job["client"] != wanted:
            if cache is not None:
                await cache.close()
            wanted = job["client"]
            cache = EVCache(**wanted, nodes=LOYAL_NODES)
        print(json.dumps(await (storm if job["do"] == "storm" else call)(cache, job)), flush=True)
    if cache is not None:
        await cache.close()


# How a test runs them.


class Process:
    """One child."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.stampede_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=Path(__file__).parents[1],
        )
        self.pid = self._process.pid
        self._ready = False

    def send(self, job):
        if not self._ready:
            assert self._line() == b"ready\n"
            self._ready = True
        self._process.stdin.write(json.dumps(job).encode() + b"\n")

    def answer(self):
        return json.loads(self._line())

    def has_answered(self):
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def kill(self):
        """SIGKILL: nothing is given back, no connection is closed in order."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def close(self):
        if self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.kill()

    def _line(self):
        assert select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0], f"no answer in {ANSWER_SECONDS:g} s"
        return self._process.stdout.readline()


class Crew:
    """Children that live as long as the tests that use them; one that was killed is replaced."""

    def __init__(self, count):
        self.processes = [Process() for _ in range(count)]

    def replace(self, index):
        self.processes[index].kill()
        self.processes[index] = Process()

    def close(self):
        for process in self.processes:
            process.close()


class Scene:
    """One key of one cache, a crew that asks for it, and a source that does what the test wants.

    `homes`: the local zone of each process.
    """

    def __init__(self, crew, zones, namespace, directory, homes, **options):
        self.crew = crew
        common = {"namespace": namespace, "zones": zones, **PATIENT_CALLS, **options}
        self._clients = [common | {"local_zone": home} for home in homes]
        self._directory = directory
        self._log = directory / "log"
        self._gates = 0

    def gate(self):
        """Something to wait for; `open` it."""
        self._gates += 1
        return str(self._directory / f"gate-{self._gates}")

    @staticmethod
    def open(gate):
        Path(gate).touch()

    def begin(self, *processes, callers=250, load_seconds=0.0, **job):
        """Let the callers of these processes ask at the same moment."""
        storm = {"do": "storm", "callers": callers, "load_seconds": load_seconds, "log": str(self._log), **job}
        for process in processes:
            self.crew.processes[process].send(
                storm | {"client": self._clients[process], "at": time.monotonic() + START_SECONDS}
            )

    def end(self, *processes):
        """Wait until these have got something; it, added up."""
        return Got([self.crew.processes[process].answer() for process in processes])

    def ask(self, *processes, **job):
        self.begin(*processes, **job)
        return self.end(*processes)

    def call(self, process, method, *arguments, **options):
        """What one operation of a process's client returns."""
        job = {"do": "call", "client": self._clients[process], "method": method, "arguments": arguments, "options": options}
        self.crew.processes[process].send(job)
        return self.crew.processes[process].answer()["result"]

    def has_answered(self, process):
        return self.crew.processes[process].has_answered()

    def log(self):
        """What loaders did: pairs of an event and a process, in the order in which it happened."""
        if not self._log.exists():
            return []
        pids = {process.pid: index for index, process in enumerate(self.crew.processes)}
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [(event, pids.get(int(pid))) for event, pid in lines]

    def count(self, event):
        return sum(happened == event for happened, _ in self.log())

    def until(self, event, count=1):
        """Wait until that has happened so often."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.count(event) < count:
            assert time.monotonic() < deadline, f"{self.count(event)} times {event!r}, not {count}"
            time.sleep(LOOK_SECONDS)


class Got:
    """What the callers of some processes got."""

    def __init__(self, answers):
        self.answers = answers
        self.values = sum((Counter(answer["values"]) for answer in answers), Counter())
        self.errors = sum((Counter(answer["errors"]) for answer in answers), Counter())
        self.least = min(answer["waited"][0] for answer in answers)
        self.most = max(answer["waited"][2] for answer in answers)

    @property
    def makers(self):
        """The process ids of those whose loaders' values these are."""
        return {int(value.partition("-")[0]) for value in self.values}

    def __repr__(self):
        return f"<{dict(self.values)} {dict(self.errors)} after {self.least:.3f} to {self.most:.3f} s>"


if __name__ == "__main__":
    asyncio.run(child())
