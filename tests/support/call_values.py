"""Functions whose calls have cache keys, and values that such keys are made of."""

import enum
import math
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import strategies as st

from evcache import InvalidArgument
from evcache.decorators.call_keys import call_keys

HERE = __name__


async def load(user_id): ...
async def load_more(user_id, lang="de"): ...
async def everything(a, /, b=2, *rest, c, d=None, **others): ...
async def nothing(): ...
async def größe(straße): ...


class Repository:
    async def load(self, user_id): ...
    async def of_class(cls, user_id): ...

    @staticmethod
    async def fixed(user_id): ...


def key_of(function, *args, key=None, **kwargs):
    return call_keys(function, key)(args, kwargs)


def problem(function, key=None, *args, **kwargs):
    """What is wrong with a key, when it is made or when it is used."""
    with pytest.raises(InvalidArgument) as caught:
        call_keys(function, key)(args, kwargs)
    assert caught.value.argument == "key"
    return caught.value.problem


def problem_at_decoration(function, key=None):
    with pytest.raises(InvalidArgument) as caught:
        call_keys(function, key)
    assert caught.value.argument == "key"
    return caught.value.problem


BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = datetime(2024, 1, 31)  # noqa: DTZ001
ID = UUID("12345678-1234-5678-1234-567812345678")
ALIKE = type("UUID", (UUID,), {"__module__": "asyncpg.pgproto.pgproto"})  # as asyncpg's rows hold them


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796  # another name of the same
    BLUE = 2


class Shade(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


FORMS = [
    ("", "''", ""),
    ("Abc-_.9", "'Abc-_.9'", "Abc-_.9"),
    ("a b", "'a%20b'", "a%20b"),
    ("a:b/c", "'a%3Ab%2Fc'", "a%3Ab%2Fc"),
    ("~%'", "'%7E%25%27'", "%7E%25%27"),
    ("é", "'%C3%A9'", "%C3%A9"),
    ("\ud800", "'%ED%A0%80'", "%ED%A0%80"),
    (b"", "b''", "~b%27%27"),
    (b"a\0\xff", "b'a%00%FF'", "~b%27a%2500%25FF%27"),
    (1, "1", "1"),
    (-1, "-1", "-1"),
    (2**2048 - 1, str(2**2048 - 1), str(2**2048 - 1)),
    (2**2048, hex(2**2048), "~" + hex(2**2048)),
    (-(2**2048), hex(-(2**2048)), "~" + hex(-(2**2048))),
    (True, "True", "~True"),
    (False, "False", "~False"),
    (None, "None", "~None"),
    (1.0, "1.0", "~1.0"),
    (-0.0, "-0.0", "~-0.0"),
    (1e16, "1e+16", "~1e%2B16"),
    (0.1 + 0.2, "0.30000000000000004", "~0.30000000000000004"),
    (math.inf, "inf", "~inf"),
    (math.nan, "nan", "~nan"),
    (Decimal("1.50"), "Decimal(1.50)", "~Decimal%281.50%29"),
    (Decimal("1E+7"), "Decimal(1E+7)", "~Decimal%281E%2B7%29"),
    (ID, f"UUID({ID})", str(ID)),
    (ALIKE(ID.hex), f"UUID({ID})", str(ID)),
    (date(2024, 1, 31), "date(2024-01-31)", "2024-01-31"),
    (date(1, 1, 1), "date(0001-01-01)", "0001-01-01"),
    (NAIVE, "datetime(2024-01-31T00:00:00)", "~datetime%282024-01-31T00%3A00%3A00%29"),
    (
        datetime(2024, 1, 31, 1, 2, 3, 4, UTC),
        "datetime(2024-01-31T01:02:03.000004+00:00(UTC))",
        "~datetime%282024-01-31T01%3A02%3A03.000004%2B00%3A00%28UTC%29%29",
    ),
    (
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        "datetime(2024-10-27T02:30:00+01:00~[Europe%2FBerlin])",
        "~datetime%282024-10-27T02%3A30%3A00%2B01%3A00%7E%5BEurope%252FBerlin%5D%29",
    ),
    (Color.RED, f"{HERE}:Color[RED]", f"~{HERE}%3AColor%5BRED%5D"),
    (Color.CRIMSON, f"{HERE}:Color[RED]", f"~{HERE}%3AColor%5BRED%5D"),
    (Shade.RED, f"{HERE}:Shade[RED]", f"~{HERE}%3AShade%5BRED%5D"),
    (Level.LOW, f"{HERE}:Level[LOW]", f"~{HERE}%3ALevel%5BLOW%5D"),
    (Right.READ | Right.WRITE, f"{HERE}:Right[3]", f"~{HERE}%3ARight%5B3%5D"),
    ((), "()", "~%28%29"),
    ((1,), "(1,)", "~%281%2C%29"),
    ((1, ("a", None)), "(1,('a',None,),)", "~%281%2C%28%27a%27%2CNone%2C%29%2C%29"),
]


def identity(value):
    """Equal for two values only if they are of one type and the same in all that a function could see of them."""
    kind = type(value)
    match value:
        case bool() | enum.Enum() | None:
            return kind, repr(value)
        case float():
            return kind, "nan" if math.isnan(value) else struct.pack("d", value)
        case Decimal():
            return kind, value.as_tuple()
        case datetime():
            zone = value.tzinfo
            which = zone.key if isinstance(zone, ZoneInfo) else zone and (zone.utcoffset(None), zone.tzname(None))
            return kind, value.replace(tzinfo=None, fold=0), value.fold, type(zone), which
        case tuple():
            return kind, tuple(map(identity, value))
    return kind, value


nasty = st.text(st.sampled_from("ab1.0-_%~'\"(),=:[]{}/\\ \0é\ud83d\ude00😀"), max_size=6)
zones = st.sampled_from([
    None, UTC, BERLIN, ZoneInfo("UTC"), timezone(timedelta(hours=1)), timezone(timedelta(hours=1), "Europe/Berlin"),
    timezone(timedelta(hours=1), "[Europe/Berlin]"), timezone(timedelta(0), "GMT"),
])  # fmt: skip
small_dates = st.sampled_from([date(2024, 1, 1), date(2024, 10, 27)])
moments = st.builds(
    datetime.combine,
    small_dates,
    st.times() | st.sampled_from([time(0), time(2, 30)]),
    zones,
)
scalars = st.one_of(
    nasty,
    st.text(),
    nasty.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=4),
    st.integers(-2, 2),
    st.integers(),
    st.integers(2**2047, 2**2049),
    st.booleans(),
    st.none(),
    st.floats(),
    st.integers(-2, 2).map(float),
    st.decimals(),
    st.sampled_from([Decimal(1), Decimal("1.0"), Decimal("-0"), Decimal("1E1"), Decimal(10)]),
    st.uuids(),
    st.just(ID),
    st.dates(),
    small_dates,
    moments,
    moments.map(lambda moment: moment.replace(fold=1)),
    st.sampled_from([*Color, *Shade, *Level, Right.READ, Right.READ | Right.WRITE, Right(0)]),
    # What another value looks like, as a str.
    st.sampled_from([form for _, form, _ in FORMS] + [text for _, _, text in FORMS]),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)


def a_pair(strategy):
    """Two that are often the same, or the same but for a part."""
    return st.tuples(strategy, strategy) | strategy.map(lambda one: (one, one))
