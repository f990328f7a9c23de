"""Keys of calls: what they look like, that no two calls meet in one, and what is refused."""

import decimal
import enum
import functools
import inspect
import io
import math
import string
import struct
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evcache import InvalidArgument
from evcache.call_keys import NoExactTextError, call_keys, escape, exact, in_template
from evcache.keys import Keys

HERE = __name__
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


async def load(user_id): ...
async def load_more(user_id, lang="de"): ...
async def everything(a, /, b=2, *rest, c, d=None, **others): ...
async def nothing(): ...
async def größe(straße): ...


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


# What a value is written as -------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("value", "form", "text"), FORMS, ids=ascii)
def test_values_are_written_like_this_for_ever(value, form, text):
    """Processes of other versions read what is stored, so these forms must not change."""
    assert exact(value) == form
    assert in_template(value) == text


# The least that is a file of a time zone: no changes, one offset, 0, called UTC.
UTC_FILE = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"


class Pair(NamedTuple):
    a: int


NOT_EXACT = [
    object(),
    [1],
    {"a": 1},
    {1},
    frozenset(),
    bytearray(b"a"),
    memoryview(b"a"),
    1j,
    range(3),
    timedelta(1),
    len,
    int,
    type("Text", (str,), {})("a"),
    type("Number", (int,), {})(1),
    type("Share", (float,), {})(1.0),
    type("UserId", (UUID,), {})(ID.hex),
    type("Moment", (datetime,), {})(2024, 1, 1),
    Pair(1),
    (1, [2]),
    datetime(2024, 1, 1, tzinfo=ZoneInfo.from_file(io.BytesIO(UTC_FILE))),
    datetime(2024, 1, 1, tzinfo=type("Zone", (type(BERLIN),), {})("Europe/Berlin")),
    enum.Enum("Local", "A", module="__main__").A,
    enum.Enum("Inner", "A", qualname="outer.<locals>.Inner").A,
]


@pytest.mark.parametrize("value", NOT_EXACT, ids=lambda value: type(value).__qualname__)
def test_what_has_no_exact_text_is_refused(value):
    """Also what is derived from a plain type, and members of enums that other programs can't tell from theirs."""
    for write in (exact, in_template):
        with pytest.raises(NoExactTextError):
            write(value)
    assert "'user_id'" in problem(load, None, value)
    assert "{user_id}" in problem(load, "u:{user_id}", value)


def test_a_decimal_is_written_in_capitals_whatever_its_context_says():
    """A context can ask for 1e+7."""
    with decimal.localcontext() as context:
        context.capitals = 0
        assert exact(Decimal("1E+7")) == "Decimal(1E+7)"
        assert exact(Decimal("sNaN12")) == "Decimal(SNAN12)"


def test_a_process_that_writes_no_long_numbers_makes_the_same_keys():
    """Python's limit for digits can be set down to 640."""
    before = sys.get_int_max_str_digits()
    numbers = [10**n - 1 for n in (600, 616, 617, 618, 640, 641, 5000)]
    try:
        sys.set_int_max_str_digits(0)
        unlimited = [(exact(n), in_template(n)) for n in numbers]
        sys.set_int_max_str_digits(640)
        assert [(exact(n), in_template(n)) for n in numbers] == unlimited
    finally:
        sys.set_int_max_str_digits(before)


def test_every_process_makes_the_same_keys():
    """Hash seeds, the order in which modules are loaded, and addresses make no difference."""
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.evcache.test_call_keys import FORMS, exact, everything, call_keys\n"
        "make = call_keys(everything, None)\n"
        "for value, _, _ in FORMS: print(make((value,), {'c': value, 'z': 1, 'y': 2}))\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=Path(__file__).parents[2], env={"PYTHONHASHSEED": seed},
            capture_output=True, check=True, timeout=60, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = "".join(key_of(everything, value, c=value, z=1, y=2) + "\n" for value, _, _ in FORMS)
    assert printed == {here.replace(HERE, "tests.evcache.test_call_keys")}


# No two calls meet ----------------------------------------------------------------------------------------------------------


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


@given(a_pair(values))
@example((1, True))
@example((1, 1.0))
@example((0.0, -0.0))
@example((Decimal("1.0"), Decimal("1.00")))
@example((Level.LOW, 1))
@example((Shade.RED, "red"))
@example((("a", "b"), ("a,b",)))
@example((("a',", "b"), ("a", "',b")))
@example(((1, (2,)), ((1, 2),)))
@example(("\ud83d\ude00", "😀"))
@example((NAIVE, date(2024, 1, 31)))
@example((datetime(2024, 1, 1, tzinfo=BERLIN), datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))))
def test_two_values_have_one_form_only_if_they_are_the_same(pair):
    first, second = pair
    assert (exact(first) == exact(second)) == (identity(first) == identity(second))


names = st.sampled_from(["a", "e", "f", "a=1,b", "x)", "}", "", "é", " "])
calls = st.tuples(st.lists(values, min_size=1, max_size=4).map(tuple), values, st.dictionaries(names, values, max_size=3))


@given(a_pair(calls))
@example((((1,), 1, {}), ((1, 2), 1, {})))
@example((((1, 2, 3), 1, {}), ((1, 2, (3,)), 1, {})))
@example((((1,), 1, {"e": "1,f=2"}), ((1,), 1, {"e": 1, "f": 2})))
def test_two_calls_have_one_key_only_if_their_arguments_are_the_same(pair):
    """Positional and keyword arguments, defaults, *args and **kwargs: equal in type and value, or another key."""
    keys, arguments = [], []
    for args, c, others in pair:
        keys.append(key_of(everything, *args, c=c, **others))
        bound = inspect.signature(everything).bind(*args, c=c, **others)
        bound.apply_defaults()
        arguments.append(
            {
                name: {inner: identity(one) for inner, one in value.items()} if name == "others" else identity(value)
                for name, value in bound.arguments.items()
            }
        )
    assert (keys[0] == keys[1]) == (arguments[0] == arguments[1])


def as_text(value):
    """What a template keeps of a value: the text of a str, int, UUID or date; of others all."""
    if type(value) in (str, UUID, date) or (type(value) is int and abs(value) < 2**2048):
        return str(value)
    return identity(value)


@given(
    a_pair(st.tuples(values, values)), st.text(st.sampled_from("x1-_.%~")), st.sampled_from([":", "/", "::", "é", "(", ","])
)
@example((("a:b", "c"), ("a", "b:c")), "", ":")
@example((("", ":"), (":", "")), "", ":")
@example((("ax", ""), ("a", "x")), "x", ":")
@example(((None, ""), ("None", "")), "", ":")
@example((("%3A", ""), (":", "")), "", ":")
def test_two_calls_have_one_key_in_a_template_only_if_each_field_has_the_same_text(pair, around, between):
    """Whatever stands around the separator, and whatever the values hold."""
    key = f"{{a}}{around}{between}{around}{{b}}"

    async def two(a, b): ...

    first, second = (key_of(two, *one, key=key) for one in pair)
    assert (first == second) == ([as_text(one) for one in pair[0]] == [as_text(one) for one in pair[1]])


@given(values)
def test_every_key_is_one_that_a_client_takes(value):
    """No spaces, no control characters, no lone surrogates, whatever the arguments."""
    for key in (None, "user:{user_id}"):
        made = key_of(load, value, key=key)
        assert made.isascii()
        Keys("ns").full(made)


@given(st.text() | st.binary())
def test_escaped_text_can_be_read_back(text):
    """As RFC 3986 says, so that no two are the same."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    parts = escape(text).split("%")
    back = parts[0].encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in parts[1:])
    assert back == raw
    assert set(escape(text)) <= {*string.ascii_letters, *string.digits, *"-_.%"}


# Keys of all arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (nothing, (), {}, "nothing()"),
        (load, (42,), {}, "load(user_id=42)"),
        (load, (), {"user_id": 42}, "load(user_id=42)"),
        (load_more, ("42",), {}, "load_more(user_id='42',lang='de')"),
        (load_more, ("42", "de"), {}, "load_more(user_id='42',lang='de')"),
        (load_more, (), {"lang": "de", "user_id": "42"}, "load_more(user_id='42',lang='de')"),
        (everything, (1,), {"c": 3}, "everything(a=1,b=2,rest=(),c=3,d=None,others={})"),
        (
            everything,
            (1, 2, 3, 4),
            {"c": 5, "z": 6, "a": 7},
            "everything(a=1,b=2,rest=(3,4,),c=5,d=None,others={a=7,z=6})",
        ),
        (größe, (1,), {}, "gr%C3%B6%C3%9Fe(stra%C3%9Fe=1)"),
    ],
)
def test_the_key_is_the_name_and_every_argument(function, args, kwargs, expected):
    """However a call is written: by position, by keyword, or left to the default."""
    assert key_of(function, *args, **kwargs) == f"{HERE}:{expected}"


def test_a_module_and_a_class_of_one_name_are_told_apart():
    """`a.b` in module `m` is not `b` in module `m.a`."""

    async def first(): ...
    async def second(): ...

    first.__module__, first.__qualname__ = "m", "a.b"
    second.__module__, second.__qualname__ = "m.a", "b"
    assert key_of(first) != key_of(second)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"user_id": 1}), ((1,), {"language": 1}), ((), {"lang": "de"})]
)
def test_arguments_that_the_function_does_not_take_are_type_errors(args, kwargs):
    for key in (None, "user:{user_id}"):
        with pytest.raises(TypeError):
            key_of(load_more, *args, key=key, **kwargs)


class Repository:
    async def load(self, user_id): ...
    async def of_class(cls, user_id): ...

    @staticmethod
    async def fixed(user_id): ...


def a_closure():
    async def inner(user_id): ...

    return inner


async def with_a_list(user_id, parts=[]): ...  # noqa: B006
async def with_a_mark(user_id, *, mark=object()): ...  # noqa: B008


main = type(load)(load.__code__, {"__name__": "__main__"})
main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (Repository.load, "'self' has no exact text"),
        (Repository.of_class, "'cls' has no exact text"),
        (Repository().load, "bound"),
        (functools.partial(load_more, "de"), "bound"),
        (functools.update_wrapper(functools.partial(load_more, "de"), load_more), "bound"),
        (a_closure(), "made anew"),
        (main, "__main__"),
        (with_a_list, "'parts' is given a list"),
        (with_a_mark, "'mark' is given a object"),
    ],
)
def test_functions_whose_names_and_arguments_do_not_tell_calls_apart_need_a_key(function, words):
    """Which is seen when they are decorated: methods, what is bound or made in a function, scripts, odd defaults."""
    assert words in problem_at_decoration(function)


def test_a_static_method_has_a_name_of_its_own():
    assert key_of(Repository.fixed, 1) == f"{HERE}:Repository.fixed(user_id=1)"


def test_the_parameter_that_has_no_text_is_named():
    assert "'d' is given a list" in problem(everything, None, 1, c=1, d=[])
    assert "'rest' is given a dict" in problem(everything, None, 1, 2, {}, c=1)
    assert "'others' is given a set" in problem(everything, None, 1, c=1, x=set())


# Templates ------------------------------------------------------------------------------------------------------------------

site = SimpleNamespace(id=7, owner=SimpleNamespace(name="a:b"), _secret=1, nothing=None, parts=[])


async def page(site, lang="de", *rest, **others): ...


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("site:{site.id}", "site:7"),
        ("{site.id}", "7"),
        ("{site.id}/{lang}", "7/de"),
        ("{lang}x:y{site.id}!", "dex:y7!"),
        ("{site.owner.name}:{site.id}:{site.id}", "a%3Ab:7:7"),
        ("{{{lang}}}:100%s%:{site.nothing}", "{de}:100%s%:~None"),
        ("{rest}", "~%28%29"),
        ("größe:{lang}", "größe:de"),
        ("{lang}é{site.id}", "deé7"),
    ],
)
def test_templates(template, expected):
    """Fields are parameters, defaults among them, and attributes of what they are given; braces are doubled."""
    assert key_of(page, site, key=template) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{user_id}", "'user_id' is not among the parameters (site, lang, rest, others)"),
        ("page", "has no field"),
        ("", "has no field"),
        ("{site.id}{lang}", "between {site.id} and {lang}"),
        ("{site.id}x{lang}", "between"),
        ("{site.id}-{lang}", "between"),
        ("{site.id}%~_.-9Z{lang}", "between"),
        ("{lang}:{site.id}{lang}", "between {site.id} and {lang}"),
        ("{lang!r}", "conversion"),
        ("{lang:>10}", "conversion"),
        ("{lang:{site}}", "conversion"),
        ("{}", "no parameter's name"),
        ("{0}", "no parameter's name"),
        ("{rest[0]}", "no parameter's name"),
        ("{site.parts[0]}", "no parameter's name"),
        ("{site.}", "no parameter's name"),
        ("{site..id}", "no parameter's name"),
        ("{ lang }", "no parameter's name"),
        ("{site._secret}", "begin with _"),
        ("{site.__class__}", "begin with _"),
        ("{site.owner.__dict__}", "begin with _"),
        ("{others}", "**others has no exact text"),
        ("{others.x}", "**others has no exact text"),
        ("{lang", "expected '}'"),
        ("lang}", "Single '}'"),
        ("site {lang}", "space"),
        ("site\n{lang}", "control character"),
        ("\ud800{lang}", "surrogate"),
    ],
)
def test_templates_that_can_not_be_meant_are_refused_at_decoration(template, words):
    assert words in problem_at_decoration(page, template)


def test_a_function_without_parameters_needs_no_field():
    assert key_of(nothing, key="settings") == "settings"
    assert "empty" in problem_at_decoration(nothing, "")


def test_a_template_with_self_names_what_tells_objects_apart():
    """`{self}` alone can't be written; `{self.id}` can."""
    assert key_of(Repository.load, SimpleNamespace(id=3), 42, key="{self.id}:{user_id}") == "3:42"
    assert "{self.id}" in problem_at_decoration(Repository.load, "{self}:{user_id}")
    assert "no field" in problem_at_decoration(Repository.load, "users")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{site.gone}", "{site.gone}: 'types.SimpleNamespace' object has no attribute 'gone'"),
        ("{site.nothing.id}", "{site.nothing.id}: 'NoneType' object"),
        ("{site.parts}", "{site.parts} is a list"),
        ("{site.parts.append}", "is a builtin_function_or_method"),
        ("{site}", "{site} is a types.SimpleNamespace"),
    ],
)
def test_fields_that_a_call_can_not_fill_are_named(template, words):
    assert words in problem(page, template, site)


# Callables ------------------------------------------------------------------------------------------------------------------


def test_a_callable_gets_the_arguments_as_they_were_given():
    def key(user_id, lang="xx"):
        return f"{user_id}:{lang}"

    assert key_of(load_more, 1, key=key) == "1:xx"
    assert key_of(load_more, 1, lang="fr", key=key) == "1:fr"
    assert key_of(load_more, 1, key=lambda user_id: b"raw") == b"raw"


@pytest.mark.parametrize("made", [None, 1, ["a"], bytearray(b"a")])
def test_a_callable_that_returns_no_key_is_refused(made):
    assert type(made).__name__ in problem(load, lambda user_id: made, 1)


@pytest.mark.parametrize("key", [1, b"user:{user_id}", ["a"], nothing], ids=ascii)
def test_what_is_no_key_is_refused(key):
    assert "is needed" in problem_at_decoration(load, key)


# Decorators beneath ---------------------------------------------------------------------------------------------------------


def with_session(function):
    """Adds an argument that nobody sees, and says nothing of it."""

    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function("session", *args, **kwargs)

    return wrapper


def again(function):
    """Passes everything on, and has parameters of its own."""

    @functools.wraps(function)
    async def wrapper(user_id):
        return await function(user_id)

    return wrapper


def hidden(function):
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


async def in_session(session, user_id): ...
async def in_session_maybe(session, user_id=0): ...
async def in_session_many(session, *user_ids): ...


@pytest.mark.parametrize("key", [None, "user:{user_id}", "user:{user_ids}"])
@pytest.mark.parametrize("function", [in_session_maybe, in_session_many])
def test_a_decorator_that_may_add_arguments_is_not_trusted(function, key):
    """The user would be taken for the session, and everybody be user 0."""
    assert "may add arguments" in problem_at_decoration(with_session(function), key)


@pytest.mark.parametrize("key", [None, "user:{user_id}"])
def test_an_argument_that_a_decorator_adds_is_noticed(key):
    """All parameters are required, so there is one too few."""
    with pytest.raises(TypeError):
        key_of(with_session(in_session), 42, key=key)


def test_a_decorator_that_shows_what_it_wraps_is_seen_through():
    wrapped = functools.wraps(load)(hidden(load))
    assert key_of(wrapped, user_id=42) == f"{HERE}:load(user_id=42)"
    assert key_of(wrapped, 42, key="user:{user_id}") == "user:42"


def test_a_wrapper_with_parameters_of_its_own_is_called_by_these():
    assert key_of(again(load_more), 42, key="user:{user_id}") == "user:42"
    assert "not among" in problem_at_decoration(again(load_more), "user:{lang}")


def test_a_wrapper_without_a_name_of_its_own_needs_a_key():
    """All that one decorator makes have one name."""
    assert "made anew" in problem_at_decoration(hidden(load))
    assert "not among" in problem_at_decoration(hidden(load), "user:{user_id}")


async def five(a, b, c=3, d=4, e=5): ...
async def five_mixed(a, /, b, c=3, *, d, e=5): ...
async def five_and_more(a, b, c=3, *rest, d=4, e=5): ...
async def five_others(a, /, b, c=3, d=4, **e): ...


argument_lists = st.lists(st.integers(0, 2), max_size=6).map(tuple)
keywords = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "", "rest"]), st.integers(0, 2), max_size=5)


@pytest.mark.parametrize("function", [five, five_mixed, five_and_more, five_others])
@given(args=argument_lists, kwargs=keywords)
@example(args=(), kwargs={"a": 1, "b": 2, "d": 4})
@example(args=(1,), kwargs={"b": 2, "d": 4})
@example(args=(1,), kwargs={"a": 1, "b": 2, "d": 4})
@example(args=(1, 2), kwargs={"d": 4, "c": 0})
@example(args=(), kwargs={"a": 1, "b": 2, "c": 3, "d": 4})
def test_arguments_are_bound_as_the_call_binds_them(function, args, kwargs):
    """By position, by keyword, or left out: one key for one call, and a TypeError where the call had one."""
    make = call_keys(function, None)
    try:
        function(*args, **kwargs).close()
    except TypeError:
        with pytest.raises(TypeError):
            make(args, kwargs)
        return
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    written = [
        f"{name}={{{','.join(f'{inner}={one}' for inner, one in sorted(value.items()))}}}"
        if isinstance(value, dict)
        else f"{name}=({''.join(f'{one},' for one in value)})"
        if isinstance(value, tuple)
        else f"{name}={value}"
        for name, value in bound.arguments.items()
    ]
    assert make(args, kwargs) == f"{HERE}:{function.__name__}({','.join(written)})"


def test_a_default_that_compares_in_its_own_way_is_no_trouble():
    """As arrays do, which compare item by item."""

    class Array:
        def __eq__(self, other):
            raise ValueError("the truth of an array is ambiguous")

        __hash__ = None

    async def function(user_id, array=Array()): ...  # noqa: B008

    assert key_of(function, 1, key="user:{user_id}") == "user:1"


def test_a_uuid_s_origin_is_no_part_of_it():
    """As for `==`: whether it was made safely is not told apart."""
    assert exact(UUID(ID.hex, is_safe=SafeUUID.safe)) == exact(ID)
