"""Build of the Java program in `integration/java`, once for all workers of a session."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent / "java"
TARGET = PROJECT / "target"
STAMP = TARGET / "built"  # written last, so that an interrupted build is repeated

LEAST_JAVA = 17
BUILD_SECONDS = 600  # an empty local repository takes about a minute on two busy cores, and 33 MB of disk

OFFLINE = ("Could not transfer", "could not be resolved", "Could not resolve", "Unknown host")
"""Words of Maven's output if its repository cannot be reached."""


class NoJava(Exception):
    """The Java program cannot be built here. The text names the missing part."""


def require_java(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the JVM's command up to the class path, with the program built.

    Without a JDK, Maven or its repository the calling test is skipped. If CI is set, the test fails.
    """
    try:
        return build(environ)
    except NoJava as reason:
        if environ.get("CI"):
            pytest.fail(f"the EVCache client for the JVM is required, as CI is set: {reason}", pytrace=False)
        pytest.skip(f"no EVCache client for the JVM: {reason}")


def build(environ: Mapping[str, str]) -> list[str]:
    """Build the program if a source is newer than the last build, and return the JVM's command up to the class path.

    Raises NoJava if a tool or the repository is missing, and RuntimeError if the program does not compile.
    """
    java = find_java(environ)
    TARGET.mkdir(exist_ok=True)
    with (TARGET / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers wait here, and then find the stamp
        if not is_built():
            _run_maven(environ)
    return [java, "-cp", os.pathsep.join((str(TARGET / "classes"), str(TARGET / "lib" / "*")))]


def is_built() -> bool:
    """Return True if no source is newer than the last complete build."""
    if not STAMP.exists():
        return False
    sources = [PROJECT / "pom.xml", *(PROJECT / "src").rglob("*.java")]
    return all(source.stat().st_mtime <= STAMP.stat().st_mtime for source in sources)


def find_java(environ: Mapping[str, str]) -> str:
    """Return the path of `java`, from JAVA_HOME or PATH. Raises NoJava without a JDK of version 17 or newer."""
    home = environ.get("JAVA_HOME")
    path = str(Path(home) / "bin") if home else environ.get("PATH")
    java, compiler = shutil.which("java", path=path), shutil.which("javac", path=path)
    if java is None or compiler is None:
        raise NoJava(f"no JDK in JAVA_HOME, {home}" if home else "no JDK on PATH")
    version = _run([compiler, "-version"], environ).stdout.removeprefix("javac ").partition(".")[0].strip()
    if not version.isdecimal() or int(version) < LEAST_JAVA:
        raise NoJava(f"{compiler} has version {version}, and {LEAST_JAVA} is required")
    return java


def _run_maven(environ: Mapping[str, str]) -> None:
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise NoJava("no mvn on PATH")
    STAMP.unlink(missing_ok=True)
    for remains in ("classes", "lib"):  # Maven keeps classes and packages that the project no longer has
        shutil.rmtree(TARGET / remains, ignore_errors=True)
    done = _run([maven, "--batch-mode", "--quiet", "--file", str(PROJECT / "pom.xml"), "compile"], environ)
    if done.returncode == 0:
        STAMP.touch()
    elif any(words in done.stdout for words in OFFLINE):
        raise NoJava(f"Maven's repository is unavailable:\n{done.stdout[-2000:]}")
    else:
        raise RuntimeError(f"the build of {PROJECT} failed:\n{done.stdout[-4000:]}")


def _run(command: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
