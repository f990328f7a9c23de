"""Codecs of the user. An error names the codec before anything is sent."""

import re

import pytest

from evcache import DecodeError, EncodeError, EVCache, InvalidArgument, LoadPolicy, StandardCodec, WriteBehind
from evcache.errors import CacheError
from evcache.values.checked_codec import CheckedCodec, checked
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from tests.support.memory_zones import on_zones
from tests.support.sources import Source, seen


class Codec:
    """Returns what it is given."""

    def __init__(self, data=b"x", flags=16, error=None):
        self.data, self.flags, self.error = data, flags, error

    def encode(self, value):
        if self.error is not None:
            raise self.error
        return self.data, self.flags

    def decode(self, data, flags):
        if self.error is not None:
            raise self.error
        return data


class Triple(Codec):
    def encode(self, value):
        return b"x", 1, 2


class Nothing(Codec):
    def encode(self, value):
        return None


class Async(Codec):
    async def encode(self, value):
        return b"x", 1


class HalfAsync(Codec):
    async def decode(self, data, flags):
        return data


class NoDecode:
    def encode(self, value):
        return b"x", 1


NOT_CODECS = {
    "object": (object(), "no encode()"),
    "no decode": (NoDecode(), "no decode()"),
    "a class": (StandardCodec, "StandardCodec()"),
    "a function": (lambda value: value, "no encode()"),
    "async": (Async(), "encode() of"),
    "async decode": (HalfAsync(), "decode() of"),
    "a name": ("gzip", "no decode()"),
}
BAD_RESULTS = {
    "str": (Codec("text"), "must return bytes, not str"),
    "None for bytes": (Codec(None), "must return bytes, not NoneType"),
    "nothing": (Nothing(), "must return (bytes, flags), not NoneType"),
    "three": (Triple(), "must return (bytes, flags), not tuple"),
    "flags below 0": (Codec(flags=-1), "flags from 0 to 2**32 - 1, not -1"),
    "flags of 33 bits": (Codec(flags=2**32), "not 4294967296"),
    "float flags": (Codec(flags=1.0), "not 1.0"),
    "no flags": (Codec(flags=None), "not None"),
    "bool flags": (Codec(flags=True), "not True"),
    "of deletes": (Codec(flags=FLAG_TOMBSTONE), "reserved for deletes"),
    "of absences": (Codec(flags=FLAG_ABSENT), "reserved for known absences"),
    "of envelopes": (Codec(flags=FLAG_ENVELOPE), "reserved for envelopes"),
    "raises": (Codec(error=ZeroDivisionError("division by zero")), "raised ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize(("codec", "says"), NOT_CODECS.values(), ids=NOT_CODECS)
def test_what_is_no_codec_is_refused_at_construction(codec, says, tmp_path):
    for make in (
        lambda: EVCache("t", {"a": ["127.0.0.1:1"]}, codec=codec),
        lambda: WriteBehind(None, Source().write, path=str(tmp_path / "f"), codec=codec),
    ):
        with pytest.raises(InvalidArgument, match=re.escape(says)) as caught:
            make()
        assert caught.value.argument == "codec"


@pytest.mark.parametrize(("codec", "says"), BAD_RESULTS.values(), ids=BAD_RESULTS)
@on_zones(zones=2)
async def test_what_no_server_can_store_is_an_error_of_the_call(zones, codec, says):
    """It names the codec and the type of the value. Nothing is sent, and the client goes on."""
    cache = await zones.ready(codec=codec)
    calls = (
        lambda: cache.set("k", 3),
        lambda: cache.set_many({"k": 3, "l": 4}),
        lambda: cache.add("k", 3),
        lambda: cache.replace("k", 3),
        lambda: cache.cas("k", 3, 1),
        lambda: cache.write_through("k", 3, Source().write),
        lambda: cache.get_or_load("k", Source(3).load, policy=LoadPolicy(failure_backoff=0)),
        lambda: cache.get_or_load_many(["k"], Source(3).load_many, policy=LoadPolicy(failure_backoff=0)),
    )
    for call in calls:
        with pytest.raises(EncodeError, match=re.escape(says)) as caught:
            await call()
        assert f"{type(codec).__qualname__}.encode() of a value of type int" in str(caught.value)
    assert seen(zones, "k") == {"a": None, "b": None}
    assert await cache.delete("k")


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
@on_zones(zones=2)
async def test_buffers_are_copied(zones, data):
    cache = await zones.ready(codec=Codec(data))
    await cache.set("k", 1, consistency="all")
    assert await cache.get("k") == b"ab"
    assert CheckedCodec(Codec(data)).encode(1) == (b"ab", 16)


@pytest.mark.parametrize("error", [ValueError("no"), EOFError(), RecursionError("deep"), MemoryError()])
@on_zones(zones=2)
async def test_any_error_of_decode_is_a_decode_error(zones, error):
    """So that a read names key, zone and flags, and `get_or_load` does without the value."""
    cache = await zones.ready(codec=(codec := Codec()))
    await cache.set("k", 1, consistency="all")
    codec.error = error
    with pytest.raises(
        DecodeError, match=rf"key b't:k' in zone a, flags 16: Codec.decode\(\) raised {type(error).__name__}"
    ):
        await cache.get("k")
    with pytest.raises(DecodeError) as caught:
        await cache.get_many(["k", "nothing"])
    assert caught.value.unreadable == ("k",)


def test_codec_errors_are_passed_on():
    for error in (EncodeError("mine"), DecodeError("mine")):
        codec = checked(Codec(error=error))
        for call in (lambda codec=codec: codec.encode(1), lambda codec=codec: codec.decode(b"", 0)):
            with pytest.raises(CacheError, match="mine"):
                call()


def test_the_standard_codec_has_no_wrapper():
    """It would cost every read a call."""
    codec = StandardCodec()
    assert checked(codec) is codec


class Upper(StandardCodec):
    def encode(self, value):
        return super().encode(value.upper())


@on_zones(zones=2)
async def test_a_subclass_of_the_standard_codec_is_used(zones):
    cache = await zones.ready(codec=Upper())
    await cache.set("k", "a")
    assert await cache.get("k") == "A"
    assert await cache.get("k", as_=str) == "A"
