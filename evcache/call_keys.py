"""Keys of calls: from a function's arguments to what its result is stored under. Pure.

Two calls that differ must not meet in one key, or one caller is given another's data. So a value is written in a form that
no other value has, in any process and Python version; whatever has no such form is refused, where `repr` would have had one
that ends with an address. Types are told apart: 1, 1.0, True, "1" and b"1" are five values.

    app.users:load(user_id=42,lang='de')    the function's own key: its name, and every argument by name, defaults included
    user:42                                 from the template "user:{user_id}"

Arguments have their names in it because versions of a program run side by side while one replaces the other, and may
disagree about the order of parameters.
"""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from evcache.keys import Keys
from zones.errors import InvalidArgument

CallKey = str | Callable[..., str | bytes]
"""What a developer says about keys: a template, or a callable that is given the call's arguments."""

MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], str | bytes]

# What a value is written in; all else becomes %XX, as in RFC 3986, whose unreserved letters these are, without the tilde.
_SAFE = frozenset((string.ascii_letters + string.digits + "-_.").encode())
_WRITTEN = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_IS_SAFE = re.compile(r"[A-Za-z0-9\-_.]*").fullmatch
# Begins a value in a template that is more than its plain text. Escaped where a text holds it, so no text can look like one.
_MARK = "~"
# What stands between two fields must hold something that neither can: then it is plain where one ends and the next begins.
_MAY_BE_IN_VALUES = _SAFE | frozenset(b"%~")

# Python refuses to write, and a process may set the limit down to 640 digits, which is 2,126 bits.
_MAX_DECIMAL_BITS = 2048

_NEEDED = "a template or a callable is needed"

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class NoExactTextError(Exception):
    """This value has no form that no other value has. Becomes an `InvalidArgument` that names the parameter."""

    def __init__(self, value: object) -> None:
        kind = type(value)
        super().__init__(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def call_keys(function: Callable[..., Any], key: CallKey | None) -> MakeKey:
    """Make what makes the keys of a function's calls: called with a tuple of arguments and a dict of keyword arguments.

    `key`: see `evcache.cached`. Raises `InvalidArgument` naming `key` for what can't work, here or, where that depends on
    the arguments, when it is called; then also TypeError, for arguments that the function does not take.
    """
    if key is None:
        return _of_all_arguments(function)
    if isinstance(key, str):
        return _from_template(function, key)
    if not callable(key) or inspect.iscoroutinefunction(key):
        raise InvalidArgument("key", f"a template, a callable that is not async, or None is needed, not {key!r}")
    return _from_callable(key)


def automatic_name(function: Callable[..., Any]) -> str:
    """The name of a function in its own keys, the same in every process. Raises `InvalidArgument` when it has none."""
    why = ""
    if not inspect.isfunction(function):  # a method, or a partial: what it is bound to is not in its name
        why = f"{function!r} is bound to arguments, or an object"
    elif function.__module__ == "__main__":
        why = f"{function.__qualname__} is in __main__, as are others in other programs"
    elif "<locals>" in function.__qualname__:  # and may see another tenant in a variable each time
        why = f"{function.__qualname__} is made anew in each call of another function"
    if why:
        raise InvalidArgument("key", f"{why}, so that its name says too little: {_NEEDED}")
    return f"{escape(function.__module__)}:{escape(function.__qualname__)}"


def escape(text: str | bytes) -> str:
    """Letters, digits and -_. as they are, everything else as %XX; different texts stay different."""
    if isinstance(text, str):
        if _IS_SAFE(text):
            return text
        text = text.encode("utf-8", "surrogatepass")  # lone surrogates, too, have a form of their own
    return "".join([_WRITTEN[byte] for byte in text])


def exact(value: Any) -> str:
    """The form of a value that no other value has, whatever its type. Raises `NoExactTextError`."""
    write = _EXACT.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, Enum):
        return _member(value)
    if _is_uuid(type(value)):
        return f"UUID({value})"
    raise NoExactTextError(value)


def in_template(value: Any) -> str:
    """The form of a value in a template: the text of a str, int, UUID or date, so that keys are what templates look like.

    The developer writes that text down by hand elsewhere, and the number 42 and the text "42" of a URL are one user.
    All else is marked: None is not the user "None". Raises `NoExactTextError`.
    """
    write = _PLAIN.get(type(value))
    if write is not None:
        return write(value)
    if _is_uuid(type(value)):
        return str(value)
    return _MARK + escape(exact(value))


def _int(value: int) -> str:
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)


def _plain_int(value: int) -> str:
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else _MARK + hex(value)


def _datetime(value: datetime) -> str:
    # The zone belongs to it: a day later is another moment in Berlin than at +01:00. So does `fold`: which of two 2:30.
    zone = value.tzinfo
    if zone is None:
        name = ""
    elif type(zone) is timezone:
        name = f"({escape(zone.tzname(None))})"
    elif type(zone) is ZoneInfo and zone.key is not None:
        name = f"[{escape(zone.key)}]"
    else:
        raise NoExactTextError(zone)
    return f"datetime({value.isoformat()}{'~' if value.fold else ''}{name})"


def _tuple(values: tuple[Any, ...]) -> str:
    return f"({''.join([exact(value) + ',' for value in values])})"


def _keywords(values: dict[str, Any]) -> str:
    return f"{{{','.join([f'{escape(name)}={exact(values[name])}' for name in sorted(values)])}}}"


def _member(member: Enum) -> str:
    kind = type(member)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:  # another program's has the same name
        raise NoExactTextError(member)
    which = exact(member._value_) if isinstance(member, Flag) else escape(member._name_)  # flags may have several names
    return f"{escape(kind.__module__)}:{escape(kind.__qualname__)}[{which}]"


def _is_uuid(kind: type) -> bool:
    # asyncpg's rows hold UUIDs of its own class, which are meant to be taken for the standard one. Other classes that are
    # derived from a type may mean something else by the same value.
    return kind.__module__ == "asyncpg.pgproto.pgproto" and issubclass(kind, UUID)


# By exact type: what is derived from one of these may hold more than its text says.
_EXACT: dict[type, Callable[[Any], str]] = {
    str: lambda value: f"'{escape(value)}'",
    bytes: lambda value: f"b'{escape(value)}'",
    int: _int,
    bool: repr,
    type(None): repr,
    float: repr,  # the shortest text that is read as the same number; -0.0 and 0.0 differ
    Decimal: lambda value: f"Decimal({str(value).upper()})",  # the context may ask for a small e
    UUID: lambda value: f"UUID({value})",
    date: lambda value: f"date({value.isoformat()})",
    datetime: _datetime,
    tuple: _tuple,
}
_PLAIN: dict[type, Callable[[Any], str]] = {str: escape, int: _plain_int, UUID: str, date: date.isoformat}


class _Arguments:
    """Calls of one function: which argument belongs to which parameter."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = _signature(function)
        self.parameters = tuple(self._signature.parameters.values())
        # For so many positional arguments, and none by keyword: the values of the parameters after them.
        self._others: dict[int, tuple[Any, ...]] = {}
        # For others: names that may be given by keyword, and defaults. The most positional ones, if there are no stars.
        self._by_name = [(None if one.kind is one.POSITIONAL_ONLY else one.name, one.default) for one in self.parameters]
        positional = [one for one in self.parameters if one.kind in _POSITIONAL]
        others = [one for one in self.parameters if one.kind not in _POSITIONAL]
        self._most = -1 if any(one.kind in _STARS for one in others) else len(positional)
        for given in range(len(positional) + 1):
            defaults = tuple(_default(one) for one in (*positional[given:], *others))
            if not any(value is inspect.Parameter.empty for value in defaults):
                self._others[given] = defaults

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The value of each parameter, in their order. Raises TypeError as the call would."""
        if not kwargs:
            others = self._others.get(len(args))
            if others is not None:
                return args + others
        elif len(args) <= self._most:
            values, left = list(args), len(kwargs)
            for name, default in self._by_name[len(args) :]:
                if name in kwargs:
                    values.append(kwargs[name])
                    left -= 1
                elif default is inspect.Parameter.empty:
                    break
                else:
                    values.append(default)
            else:
                if not left:
                    return tuple(values)
        bound = self._signature.bind(*args, **kwargs)  # takes ten times as long
        bound.apply_defaults()
        if len(bound.arguments) != len(self.parameters):  # Python 3.13.0 overlooks a=1 for f(a, /, **others)
            raise TypeError("an argument that can't be given by keyword is missing")
        return tuple(bound.arguments.values())


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return ()
    return {} if parameter.kind is inspect.Parameter.VAR_KEYWORD else parameter.default


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature that calls are bound to. Raises `InvalidArgument` for one that can't be trusted.

    A decorator's wrapper takes (*args, **kwargs) and shows the signature of what it wraps, but may add arguments: a session,
    say. Then `load(42)` would be bound to the session, and the user be its default, for everybody. Where all parameters are
    required, such a call can't be bound, so the mistake is loud.
    """
    is_wrapper = hasattr(function, "__wrapped__")
    try:
        own = inspect.signature(function, follow_wrapped=False)
        if not is_wrapper or tuple(one.kind for one in own.parameters.values()) != _STARS:
            return own
    except ValueError as error:  # of objects that are bound as functions are, and are none, it knows only what they wrap
        if not is_wrapper:
            raise InvalidArgument("key", f"{function!r} shows no signature: a callable is needed") from error
    shown = inspect.signature(function)
    for one in shown.parameters.values():
        if one.kind is one.VAR_POSITIONAL or (one.kind in _POSITIONAL and one.default is not one.empty):
            raise InvalidArgument(
                "key",
                f"{function!r} is wrapped by a decorator that may add arguments, which would go unnoticed, as {one.name!r} "
                "is optional: put that decorator above this one, or use a callable",
            )
    return shown


def _of_all_arguments(function: Callable[..., Any]) -> MakeKey:
    name = automatic_name(function)
    arguments = _Arguments(function)
    parameters = arguments.parameters
    if parameters and parameters[0].name in ("self", "cls"):
        raise InvalidArgument("key", f"{name} is a method, and {parameters[0].name!r} has no exact text: {_NEEDED}")
    writers = [_keywords if one.kind is inspect.Parameter.VAR_KEYWORD else exact for one in parameters]
    has_keywords = _keywords in writers
    for parameter in parameters:
        if parameter.default is not parameter.empty:
            _write_all([exact], [parameter], (parameter.default,))
    form = f"{_literal(name)}({','.join(f'{_literal(escape(one.name))}=%s' for one in parameters)})"

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        values = arguments.bind(args, kwargs)
        if has_keywords:
            return form % _write_all(writers, parameters, values)
        try:
            return form % tuple(map(exact, values))
        except NoExactTextError:
            return form % _write_all(writers, parameters, values)

    return make


def _write_all(
    writers: Sequence[Callable[[Any], str]], parameters: Sequence[inspect.Parameter], values: tuple[Any, ...]
) -> tuple[str, ...]:
    texts = []
    for write, parameter, value in zip(writers, parameters, values, strict=True):
        try:
            texts.append(write(value))
        except NoExactTextError as error:
            raise InvalidArgument(
                "key",
                f"the parameter {parameter.name!r} is given a {error}, which has no exact text: a template that names what "
                f"tells its values apart (as in 'thing:{{{parameter.name}.id}}') or a callable is needed",
            ) from error
    return tuple(texts)


class _Field(NamedTuple):
    """One field of a template."""

    text: str
    parameter: int
    attributes: tuple[str, ...]

    def read(self, values: tuple[Any, ...]) -> str:
        value = values[self.parameter]
        try:
            for name in self.attributes:
                value = getattr(value, name)
            return in_template(value)
        except NoExactTextError as error:
            raise InvalidArgument(
                "key", f"{{{self.text}}} is a {error}, which has no exact text: name one of its parts"
            ) from error
        except AttributeError as error:
            raise InvalidArgument("key", f"{{{self.text}}}: {error}") from error


def _from_template(function: Callable[..., Any], template: str) -> MakeKey:
    arguments = _Arguments(function)
    fields: list[_Field] = []
    form = between = ""
    for literal, text, spec, conversion in _parsed(template):
        between += literal
        form += _literal(literal)
        if text is None:
            continue
        if spec or conversion:
            raise InvalidArgument(
                "key", f"{template!r}: the field {text!r} has a conversion or format; names only are possible"
            )
        if fields and not any(letter not in _MAY_BE_IN_VALUES for letter in between.encode("utf-8", "surrogatepass")):
            raise InvalidArgument(
                "key",
                f"{template!r}: between {{{fields[-1].text}}} and {{{text}}} must be something that values can't hold, such "
                "as ':' or '/'; letters, digits and -_.%~ are none",
            )
        fields.append(_field(arguments, template, text))
        form += "%s"
        between = ""
    if not fields and arguments.parameters:
        raise InvalidArgument(
            "key", f"{template!r} has no field, so that all calls had one value; if they shall, use a callable"
        )
    # Spaces and control characters would be refused in every call. The letter stands for values.
    Keys("check").full(form % tuple("x" for _ in fields))

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        values = arguments.bind(args, kwargs)
        return form % tuple([field.read(values) for field in fields])

    return make


def _parsed(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidArgument("key", f"{template!r}: {error}") from error


def _field(arguments: _Arguments, template: str, text: str) -> _Field:
    name, *attributes = text.split(".")
    if not all(part.isidentifier() and not part.startswith("_") for part in (name, *attributes)):
        raise InvalidArgument(
            "key",
            f"{template!r}: {text!r} is no parameter's name, nor a path of attributes; names that begin with _ are none",
        )
    names = [one.name for one in arguments.parameters]
    if name not in names:
        raise InvalidArgument("key", f"{template!r}: {name!r} is not among the parameters ({', '.join(names)})")
    index = names.index(name)
    parameter = arguments.parameters[index]
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        raise InvalidArgument("key", f"{template!r}: **{name} has no exact text; name the parameters, or use a callable")
    if index == 0 and name in ("self", "cls") and not attributes:
        raise InvalidArgument(
            "key", f"{template!r}: {name!r} has no exact text; name what tells objects apart, as in {{self.id}}"
        )
    return _Field(text, index, tuple(attributes))


def _from_callable(key: Callable[..., str | bytes]) -> MakeKey:
    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | bytes:
        made = key(*args, **kwargs)
        if not isinstance(made, str | bytes):
            raise InvalidArgument("key", f"{key!r} returned a {type(made).__name__}, and a str or bytes is needed")
        return made

    return make


def _literal(text: str) -> str:
    return text.replace("%", "%%")
