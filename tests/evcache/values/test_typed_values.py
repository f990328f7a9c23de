"""Values of the type that a caller names: which types there are, by which operations, and from which place."""

import pathlib
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import DecodeError, InvalidArgument, StandardCodec
from evcache.values.typed import TypedDecoder
from tests.support.memory_zones import on_zones
from tests.support.value_types import NAIVE, REFUSED, STORED, Color, Person, User, near_client, same

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "values.md"
by_type = pytest.mark.parametrize(("kind", "values"), [row[1:3] for row in STORED], ids=[row[0] for row in STORED])
by_refused = pytest.mark.parametrize(("kind", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])


def docs_table(heading):
    text = DOCS.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in row) for row in rows[2:]]


# Which types.


@dataclass
class Everything:
    """Of what hypothesis makes up."""

    when: datetime
    day: date
    clock: time
    span: timedelta
    ids: dict[UUID, tuple[int, ...]]
    names: frozenset[str]
    maybe: Color | None
    raw: bytes
    inner: list["Everything"]


# Not the zones of the world: a time that a change of clocks repeats equals no time of another zone.
OFFSETS = st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))


EVERYTHING = st.deferred(
    lambda: st.builds(
        Everything,
        when=st.datetimes() | st.datetimes(NAIVE.replace(year=1900), NAIVE.replace(year=2100), timezones=OFFSETS),
        ids=st.dictionaries(st.uuids(), st.lists(st.integers(-(2**63), 2**64 - 1), max_size=3).map(tuple), max_size=3),
        inner=st.lists(EVERYTHING, max_size=1),
    )
)


@given(EVERYTHING)
def test_whatever_fits_a_type_comes_back_as_it_was(value):
    codec = StandardCodec()
    back = TypedDecoder(Everything, codec).decode(*codec.encode(value))
    assert type(back) is Everything
    assert back == value


@pytest.mark.parametrize(
    "codec", [StandardCodec(), StandardCodec(compress_over=1), StandardCodec(compress_over=1, compression="zstd")]
)
@by_type
def test_a_value_comes_back_as_its_type(kind, values, codec):
    decoder = TypedDecoder(kind, codec)
    for value in values:
        assert same(decoder.decode(*codec.encode(value)), value)


@pytest.mark.parametrize(("name", "kind", "values", "plain"), STORED, ids=[row[0] for row in STORED])
def test_without_its_type_a_value_is_what_the_codec_makes_of_it(name, kind, values, plain):
    codec = StandardCodec()
    if plain is None:
        with pytest.raises(DecodeError):
            codec.decode(*codec.encode(values[0]))
    else:
        assert type(codec.decode(*codec.encode(values[0]))) is plain


def test_the_docs_have_the_table_of_types():
    plain = {name: "an error" if kind is None else f"`{kind.__name__}`" for name, _, _, kind in STORED}
    assert dict(docs_table("Types")) == plain
    assert [row[0] for row in docs_table("Refused types")] == [name for name, *_ in REFUSED]


@by_type
@on_zones(zones=2)
async def test_every_operation_returns_the_type(zones, kind, values):
    """From the zones, from the near cache, just loaded, and loaded by another process."""
    cache, plain, other = await near_client(zones), await zones.ready(), await zones.ready(local_zone="b")
    value = values[0]
    await plain.set_many({"k": value, "l": value}, consistency="all")

    async def load():
        return value

    async def load_many(keys):
        return dict.fromkeys(keys, value)

    for client in (plain, cache, cache):
        assert same(await client.get("k", as_=kind), value)
        item = await client.get_item("k", as_=kind)
        assert same(item.value, value)
        assert same(await client.get_many(["k", b"l"], as_=kind), {"k": value, b"l": value})
        assert same(await client.get_and_touch("k", 60, as_=kind), value)
        assert same(await client.get_or_load("k", load, as_=kind), value)
        assert same(await client.get("k", near_cache=False, consistency="all", as_=kind), value)
    for client in (cache, cache, other):  # loaded, near, and from the zones
        assert same(await client.get_or_load("loaded", load, as_=kind), value)
        assert same(await client.get_or_load_many(["m", b"n"], load_many, as_=kind), {"m": value, b"n": value})
    assert await cache.get("nothing", as_=kind) is None
    assert await cache.get("nothing", 5, as_=kind) == 5


@by_refused
@on_zones(zones=2)
async def test_a_type_that_cannot_be_read_back_is_refused(zones, kind, says):
    """Before anything is sent, naming argument and type."""
    cache = await zones.ready()
    await cache.set("k", 1)
    await zones.kill("a")  # whatever were sent would be an error, or a miss
    await zones.kill("b")

    async def load():
        raise AssertionError("the call is refused")

    calls = (
        lambda: cache.get("k", as_=kind),
        lambda: cache.get_item("k", as_=kind),
        lambda: cache.get_many(["k"], as_=kind),
        lambda: cache.get_and_touch("k", as_=kind),
        lambda: cache.get_or_load("k", load, as_=kind),
        lambda: cache.get_or_load_many(["k"], load, as_=kind),
    )
    for call in calls:
        with pytest.raises(InvalidArgument, match=re.escape(says)) as caught:
            await call()
        assert caught.value.argument == "as_"

    async def function(number: int):
        raise AssertionError("never decorated")

    function.__annotations__["return"] = kind
    with pytest.raises(InvalidArgument, match=re.escape(says)) as caught:
        cache.cached(key="k:{number}")(function)
    assert caught.value.argument == "function"


@pytest.mark.parametrize("nonsense", [3, "User", (int, str), ..., [int]])
@on_zones(zones=1)
async def test_what_is_no_type_is_refused(zones, nonsense):
    cache = await zones.ready()
    with pytest.raises(InvalidArgument, match="as_: "):
        await cache.get("k", as_=nonsense)


@on_zones(zones=1)
async def test_types_that_say_nothing(zones):
    cache = await zones.ready()
    await cache.set("k", User(1))
    for nothing in (None, Any, object, TypeVar("T")):
        assert await cache.get("k", as_=nothing) == {"id": 1, "name": "Ada"}


@on_zones(zones=1)
async def test_types_without_a_hash(zones):
    """Their decoder is made for each call."""
    cache = await zones.ready()
    await cache.set("k", 3)
    assert await cache.get("k", as_=Annotated[int, msgspec.Meta(extra_json_schema={})]) == 3
    assert await cache.get("k", as_=Annotated[int, []]) == 3


@on_zones(zones=1)
async def test_types_that_are_made_all_the_time_do_not_fill_the_memory(zones):
    cache = await zones.ready()
    await cache.set("k", {"id": 1})
    for number in range(1100):
        kind = type(f"T{number}", (msgspec.Struct,), {"__annotations__": {"id": int}})
        assert type(await cache.get("k", as_=kind)) is kind
    assert len(cache._runtime.decoding._decoders) <= 1000


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("YWI=", bytes),
        (b"a", str),
        (True, int),
        (1, bool),
        ("1", int),
        (1.5, int),
        ({"id": "x"}, User),
        ([1], User),
        ({"id": 1}, Person),
        ("green", Color),
        (-1, Annotated[int, msgspec.Meta(ge=0)]),
    ],
)
@on_zones(zones=2)
async def test_a_value_of_another_shape_is_an_error(zones, value, kind):
    """Nothing is converted that only looks alike. The error names key, zone, flags and type, not the value."""
    cache = await near_client(zones)
    await cache.set("k", value, consistency="all")
    for _ in range(2):
        with pytest.raises(DecodeError, match="not readable as") as caught:
            await cache.get("k", as_=kind)
        assert (caught.value.key, caught.value.zone) == (b"t:k", "a")
        assert caught.value.flags == StandardCodec().encode(value)[1]
    assert cache.stats().decode_errors == 2
    assert await cache.get("k") == value


def test_the_error_of_a_model_does_not_show_the_value():
    with pytest.raises(DecodeError) as caught:
        TypedDecoder(Person, StandardCodec()).decode(*StandardCodec().encode({"id": "hush-hush"}))
    assert "hush" not in str(caught.value)
    assert "full_name: Field required" in str(caught.value)


@dataclass
class Exploding:
    id: int

    def __post_init__(self):
        if self.id < 0:
            raise RuntimeError("negative")


def test_any_error_of_the_types_own_code_is_a_decode_error():
    with pytest.raises(DecodeError, match="negative"):
        TypedDecoder(Exploding, StandardCodec()).decode(*StandardCodec().encode({"id": -1}))
