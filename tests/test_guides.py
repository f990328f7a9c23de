"""What the guides say beside their blocks: the tests of the page on testing pass, and types can change as a table says."""

import asyncio
import re
from dataclasses import dataclass, make_dataclass
from pathlib import Path

import pytest

from evcache import DecodeError, EVCache
from evcache.testing import LocalZones

pytest_plugins = ["pytester"]

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
SECONDS = 10.0  # no call fails because the machine is busy


def test_the_tests_of_the_page_on_testing_pass(pytester):
    blocks = re.findall(r"^```python\n(.*?)^```", (GUIDES / "testing.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    pytester.makepyfile("".join(blocks[:2]))
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


@dataclass
class Stored:
    name: str


FIELD_WITH_DEFAULT = make_dataclass("User", [("name", str), ("mail", str, "")])
FIELD_WITHOUT_DEFAULT = make_dataclass("User", [("name", str), ("mail", str)])
OTHER_TYPE = make_dataclass("User", [("name", int)])
FIELD_REMOVED = make_dataclass("User", [])


def named(kind):
    """Return a value of a dataclass of this file."""
    values = {"name": 1 if kind is OTHER_TYPE else "Ada", "mail": "a@b"}
    return kind(**{name: values[name] for name in kind.__dataclass_fields__})


@pytest.mark.parametrize(
    ("new", "reads_old", "former_reads_new"),
    [
        (FIELD_WITH_DEFAULT, True, True),
        (FIELD_REMOVED, True, False),
        (FIELD_WITHOUT_DEFAULT, False, True),
        (OTHER_TYPE, False, False),
    ],
    ids=["default", "removed", "no default", "other type"],
)
def test_a_changed_type_reads_what_the_page_on_typed_values_says(new, reads_old, former_reads_new):
    async def main():
        async with (
            LocalZones({"eu-1a": 1}, backend="embedded") as zones,
            EVCache("shop", zones.zones, read_timeout=SECONDS, write_timeout=SECONDS) as cache,
        ):
            for written, read, is_readable in ((Stored("Ada"), new, reads_old), (named(new), Stored, former_reads_new)):
                await cache.set("user", written)
                if is_readable:
                    assert isinstance(await cache.get("user", as_=read), read)
                else:
                    with pytest.raises(DecodeError):
                        await cache.get("user", as_=read)

    asyncio.run(main())
