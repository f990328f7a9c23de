"""Types that values may have, with an example of each. The table in docs/values.md is this one."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import ipaddress
import pathlib
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic

from evcache import NearCache
from tests.support.memory_zones import pass_time
from tests.support.near import follow_loop

T = TypeVar("T")


@dataclasses.dataclass
class User:
    id: int
    name: str = "Ada"


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A tree, by forward references."""

    name: str
    children: list[Node] = dataclasses.field(default_factory=list)
    parent: Node | None = None


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    next: str | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    a: int
    b: int


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Row(TypedDict, total=False):
    id: int
    tags: set[str]


@attrs.define
class Account:
    id: UUID
    balance: Decimal = Decimal(0)


class Event(msgspec.Struct, tag=True):
    at: datetime
    kind: str


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    FINE = "fine"


class Address(pydantic.BaseModel):
    street: str
    since: date


class Person(pydantic.BaseModel):
    """Strict, with aliases that differ, and a field that is computed."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    id: UUID
    full_name: str = pydantic.Field(validation_alias="fullName", serialization_alias="FullName")
    address: Address | None = None
    tags: frozenset[str] = frozenset()
    raw: bytes = b"\xff"
    site: pydantic.HttpUrl | None = None
    ratio: float = float("inf")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def initials(self) -> str:
        return self.full_name[:1]


class People(pydantic.RootModel[dict[str, Person]]):
    pass


BERLIN = timezone(timedelta(hours=2))
NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
NAIVE = NOON.replace(tzinfo=None)
ID = UUID("5a7c3a70-9cbc-4d7b-9d56-6e5f2b2f6a3e")


PERSON = Person(
    id=ID,
    fullName="Ada Lovelace",
    address=Address(street="Dorset St", since=date(1840, 1, 1)),
    tags=frozenset({"x"}),
    site=pydantic.HttpUrl("https://example.org/"),
)


# What the table calls it, the type, values of it, and the type of the first value if the reader names none. None: the first
# value is stored, and cannot be read without its type.
STORED: list[tuple[str, Any, list[Any], type | None]] = [
    ("`str`", str, ["é", ""], str),
    ("`bytes`", bytes, [b"\x00\xff", b""], bytes),
    ("`bool`", bool, [True, False], bool),
    ("`int`, 64 bits", int, [-(2**63), 0, 2**64 - 1], int),
    ("`float`", float, [1.5, float("inf"), -0.0], float),
    ("`datetime` with a time zone", datetime, [NOON, NOON.replace(microsecond=0), NOON.astimezone(BERLIN)], datetime),
    ("`date`", date, [date(2026, 1, 1), date.min], str),
    ("`time`", time, [time(1, 2, 3, 4), time(1, tzinfo=UTC)], str),
    ("`timedelta`", timedelta, [timedelta(days=-3, microseconds=1), timedelta.max], str),
    ("`Decimal`", Decimal, [Decimal("1.10"), Decimal("-0"), Decimal("1E+50")], str),
    ("`UUID`", UUID, [ID], str),
    ("`Enum` of str or int", Color, [Color.RED, Color.BLUE], str),
    ("`IntEnum`", Level, [Level.HIGH], int),
    ("`StrEnum`", Mood, [Mood.FINE], str),
    ("`Literal` of str, int, bool, None", Literal["on", 1, True], ["on", 1, True], str),
    ("dataclass", User, [User(1), User(2, "Bo")], dict),
    ("dataclass of itself", Node, [Node("a", [Node("b")], Node("c"))], dict),
    ("generic dataclass", Page[User], [Page([User(1)], "2")], dict),
    ("`NamedTuple`", Point, [Point(1, 2.5)], list),
    ("`TypedDict`", Row, [{"id": 1, "tags": {"a"}}, {}], dict),
    ("attrs class", Account, [Account(ID, Decimal("1.5"))], dict),
    ("msgspec `Struct`", Event, [Event(NOON, "sale")], dict),
    ("pydantic model", Person, [PERSON], dict),
    ("pydantic `RootModel`", People, [People({"a": PERSON})], dict),
    ("`list` of a type", list[User], [[User(1)], []], list),
    ("`dict` with keys of a type", dict[UUID, User], [{ID: User(1)}], dict),
    ("`dict` with keys of a frozen dataclass", dict[Pair, int], [{Pair(1, 2): 3}], None),
    ("`set`, `frozenset`", set[date], [{date(2026, 1, 1)}, set()], list),
    ("`tuple`", tuple[int, str], [(1, "a")], list),
    ("`tuple` of any length", tuple[Decimal, ...], [(Decimal(1), Decimal(2)), ()], list),
    ("union with at most one type per form", User | list[int] | int | None, [User(1), [1], 2], dict),
    ("`Optional` model", Person | None, [PERSON], dict),
    ("`Annotated`", Annotated[int, msgspec.Meta(ge=0)], [7], int),
    ("`object` or `Any` in a container", dict[str, object], [{"a": [1, None, "b"]}], dict),
    ("`datetime` without a time zone, in a container", list[datetime], [[NAIVE, NOON]], list),
    ("path", pathlib.PurePosixPath, [pathlib.PurePosixPath("/a/b")], str),
    ("IP address or network", ipaddress.IPv4Network, [ipaddress.IPv4Network("10.0.0.0/8")], str),
]


class Plain:
    """A class that says nothing of its fields."""


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Weight(enum.Enum):
    HEAVY = 1.5


@attrs.define
class Hidden:
    _secret: int


@dataclasses.dataclass
class WithPlain:
    plains: list[Plain]


@dataclasses.dataclass
class WithInitVar:
    id: int
    seed: dataclasses.InitVar[int] = 0


class Excluding(pydantic.BaseModel):
    name: str
    secret: str = pydantic.Field(default="", exclude=True)


class Secretive(pydantic.BaseModel):
    password: pydantic.SecretStr


class Arbitrary(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    plain: list[Plain]


class Outer(pydantic.BaseModel):
    inner: Excluding | None = None


# What the table calls it, the type, and what the error says about it.
REFUSED: list[tuple[str, Any, str]] = [
    ("class without declared fields", Plain, "Plain"),
    ("`complex`, `range`, functions, types", complex, "complex"),
    ("the same in a field or container", WithPlain, "Plain"),
    ("iterator, generator", collections.abc.Iterator[int], "Iterator"),
    ("`Flag`: combinations are no members", Permission, "Permission is a Flag"),
    ("`Enum` of other values", Weight, "Weight"),
    ("dataclass with an `InitVar`", WithInitVar, "InitVar"),
    ("attrs class with a private field", Hidden, "Hidden._secret would be lost"),
    ("pydantic field with `exclude=True`", Excluding, "Excluding.secret would be lost"),
    ("the same in a model of a field", Outer, "Excluding.secret would be lost"),
    ("pydantic secret", Secretive, "SecretStr"),
    ("pydantic field of an arbitrary class", Arbitrary, "Plain"),
    ("union of two classes", User | Node, "more than one"),
    ("union of `str` and a type that is stored as text", str | UUID, "str-like"),
    ("union of two pydantic models", Person | Address, "custom type"),
    ("`OrderedDict`, `defaultdict`, `deque`", collections.OrderedDict[str, int], "OrderedDict"),
]


def same(one, other):
    """Return True for equal values of the same type, all the way down."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    if isinstance(one, dict):
        return all(map(same, one.values(), other.values()))
    if isinstance(one, set | frozenset):
        return all(map(same, sorted(one), sorted(other)))
    names = getattr(one, "__dataclass_fields__", None) or getattr(type(one), "model_fields", {})
    return all(same(getattr(one, name), getattr(other, name)) for name in names)


async def near_client(zones, **options):
    cache = await zones.ready(near_cache=NearCache(), **options)
    follow_loop(cache)
    await pass_time(6)
    return cache
