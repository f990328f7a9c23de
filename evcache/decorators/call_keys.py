"""Keys of calls: from a function's arguments to what its result is stored under. Pure.

Two calls that differ must not meet in one key, or one caller is given another's data. So a key is made of texts that no
other values have (`evcache.decorators.canonical_text`), and an argument that has none is refused.

    app.users:load(user_id=42,lang='de')    the function's own key: its name, and every argument by name, defaults included
    user:42                                 from the template "user:{user_id}"

Arguments have their names in it because versions of a program run side by side while one replaces the other, and may
disagree about the order of parameters.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evcache.decorators.canonical_text import NoExactTextError, escape, exact, in_template, keywords, separates
from evcache.values.keys import Keys
from evcache.zones.errors import InvalidArgument

CallKey = str | Callable[..., str | bytes]
"""What a developer says about keys: a template, or a callable that is given the call's arguments."""

MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], str | bytes]

_NEEDED = "a template or a callable is needed"

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def call_keys(function: Callable[..., Any], key: CallKey | None) -> MakeKey:
    """Make what makes the keys of a function's calls: called with a tuple of arguments and a dict of keyword arguments.

    `key`: see `cached`. Raises `InvalidArgument` naming `key` for what can't work, here or, where that depends on
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
    writers = [keywords if one.kind is inspect.Parameter.VAR_KEYWORD else exact for one in parameters]
    has_keywords = keywords in writers
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
        if fields and not separates(between):
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
    Keys("check").qualify(form % tuple("x" for _ in fields))

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
