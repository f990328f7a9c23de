"""The pytest plugin, in separate pytest runs."""

import subprocess
import sys
import textwrap

import pytest

pytest_plugins = ["pytester"]

PLAIN = """
    import asyncio
    import pytest

    async def ask(address):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"mn\\r\\n")
        reply = await reader.read(10)
        writer.close()
        await writer.wait_closed()
        return reply
"""


@pytest.fixture
def run(pytester):
    """Run a test file in another process with warnings as errors, and check the number of passed tests."""

    def run(source, *, passed, **others):
        pytester.makepyfile(textwrap.dedent(PLAIN) + textwrap.dedent(source))
        result = pytester.runpytest_subprocess("-W", "error", "--strict-markers", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=passed, **others)
        return result

    return run


def test_the_fixture_works_in_plain_tests_with_asyncio_run(run):
    run(
        """
        def test_default(evcache_zones):
            assert list(evcache_zones.zones) == ["local-a", "local-b", "local-c"]
            for nodes in evcache_zones.zones.values():
                assert [asyncio.run(ask(node)) for node in nodes] == [b"MN\\r\\n"]

        def test_faults(evcache_zones):
            async def main():
                assert evcache_zones.is_up("local-a")
                evcache_zones.kill("local-a")
                assert not evcache_zones.is_up("local-a")
                (node,) = evcache_zones.zones["local-a"]
                with pytest.raises(ConnectionRefusedError):
                    await ask(node)
                evcache_zones.restart("local-a")
                assert await ask(node) == b"MN\\r\\n"

            asyncio.run(main())
        """,
        passed=2,
    )


def test_the_marker_carries_the_arguments_of_local_zones(run):
    run(
        """
        pytestmark = pytest.mark.evcache_zones(["one"], backend="embedded")

        def test_of_the_module(evcache_zones):
            assert list(evcache_zones.zones) == ["one"]
            assert evcache_zones.backend == "embedded"

        @pytest.mark.evcache_zones({"eu-1a": 2, "eu-1b": 1}, backend="embedded")
        def test_of_its_own(evcache_zones):
            assert [len(nodes) for nodes in evcache_zones.zones.values()] == [2, 1]
        """,
        passed=2,
    )


def test_servers_that_cannot_be_started_are_an_error_and_not_a_skip(run):
    result = run(
        """
        @pytest.mark.evcache_zones(backend="memcached", binary="/no/such/memcached")
        def test_it(evcache_zones):
            pass
        """,
        passed=0,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*BackendUnavailable: /no/such/memcached cannot be run*"])


def test_importing_the_plugin_needs_no_extra_and_does_not_wait_for_one():
    """Each pytest run imports the plugin if evcache is installed."""
    extras = ["testcontainers", "docker", "click", "rich", "uvloop", "zstandard"]
    code = f"""
import sys
for name in {extras}:
    sys.modules[name] = None  # importing it is an ImportError
import evcache.testing.pytest_plugin
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
