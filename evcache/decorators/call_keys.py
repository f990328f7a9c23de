"""Keys of calls: the key of a result is made of the function's arguments. No I/O and no clock.

Different calls must have different keys. Otherwise one caller gets the data of another. So a key consists of canonical texts
(`evcache.decorators.canonical_text`), and an argument without one is refused.

    app.users:load(user_id=42,lang='de')    the function's own key: its name, and every argument by name, defaults included
    user:42                                 from the template "user:{user_id}"

Arguments are in the key with their names. During a deployment, two versions of a program run side by side, and may have
their parameters in a different order.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evcache.decorators.canonical_text import (
    NoCanonicalTextError,
    canonical,
    canonical_keywords,
    escape,
    is_separator,
    template_text,
)
from evcache.values.keys import Keys
from evcache.zones.errors import InvalidArgument

CallKey = str | Callable[..., str | bytes]
"""Template of keys, or a callable that takes the call's arguments and returns a key."""

MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], str | bytes]

_NEEDED = "a template or a callable is needed"

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def call_keys(function: Callable[..., Any], key: CallKey | None) -> MakeKey:
    """Return the function that makes keys of calls. It takes a tuple of arguments and a dict of keyword arguments.

    Args:
        function: The function whose calls have the keys.
        key: Template, callable or None, as for `cached`.

    Raises:
        InvalidArgument: The key cannot tell calls apart. The returned function raises it for an argument.
    """
    if key is None:
        return _of_all_arguments(function)
    if isinstance(key, str):
        return _from_template(function, key)
    if not callable(key) or inspect.iscoroutinefunction(key):
        raise InvalidArgument("key", f"a template, a callable that is not async, or None is needed, not {key!r}")
    return _from_callable(key)


def automatic_name(function: Callable[..., Any]) -> str:
    """Return the name of a function in its automatic keys, equal in every process.

    Raises:
        InvalidArgument: The function has no name that tells it apart.
    """
    why = ""
    if not inspect.isfunction(function):  # the name of a method or a partial does not contain what it is bound to
        why = f"{function!r} is bound to arguments, or an object"
    elif function.__module__ == "__main__":
        why = f"{function.__qualname__} is in __main__, as functions of other programs are"
    elif "<locals>" in function.__qualname__:  # it may see another tenant in a variable each time
        why = f"{function.__qualname__} is defined in another function, once for each of its calls"
    if why:
        raise InvalidArgument("key", f"{why}, so that its name says too little: {_NEEDED}")
    return f"{escape(function.__module__)}:{escape(function.__qualname__)}"


class _Arguments:
    """Binding of arguments to the parameters of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = _signature(function)
        self.parameters = tuple(self._signature.parameters.values())
        # By the number of positional arguments, without keyword arguments: the values of the parameters after them.
        self._others: dict[int, tuple[Any, ...]] = {}
        # For other calls: names of keyword arguments, and defaults. `_most` is the limit of positional ones without stars.
        self._by_name = [(None if one.kind is one.POSITIONAL_ONLY else one.name, one.default) for one in self.parameters]
        positional = [one for one in self.parameters if one.kind in _POSITIONAL]
        others = [one for one in self.parameters if one.kind not in _POSITIONAL]
        self._most = -1 if any(one.kind in _STARS for one in others) else len(positional)
        for given in range(len(positional) + 1):
            defaults = tuple(_default(one) for one in (*positional[given:], *others))
            if not any(value is inspect.Parameter.empty for value in defaults):
                self._others[given] = defaults

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the value of each parameter, in their order. Raises TypeError as the call would."""
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
        if len(bound.arguments) != len(self.parameters):  # Python 3.13.0 accepts a=1 for f(a, /, **others)
            raise TypeError("an argument that can't be given by keyword is missing")
        return tuple(bound.arguments.values())


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return ()
    return {} if parameter.kind is inspect.Parameter.VAR_KEYWORD else parameter.default


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature that calls are bound to.

    A wrapper of a decorator takes (*args, **kwargs) and shows the signature of the wrapped function, but may add arguments,
    for example a session. Then `load(42)` would bind 42 to the session, and every caller would get the default user. If all
    parameters are required, the binding fails, and the mistake is visible.

    Raises:
        InvalidArgument: The function shows no signature, or one that a wrapper may extend without notice.
    """
    is_wrapper = hasattr(function, "__wrapped__")
    try:
        own = inspect.signature(function, follow_wrapped=False)
        if not is_wrapper or tuple(one.kind for one in own.parameters.values()) != _STARS:
            return own
    except ValueError as error:  # objects that are bound like functions show the signature of the wrapped function only
        if not is_wrapper:
            raise InvalidArgument("key", f"{function!r} shows no signature: a callable is needed") from error
    shown = inspect.signature(function)
    for one in shown.parameters.values():
        if one.kind is one.VAR_POSITIONAL or (one.kind in _POSITIONAL and one.default is not one.empty):
            raise InvalidArgument(
                "key",
                f"{function!r} is wrapped by a decorator that may add arguments without notice, because {one.name!r} is "
                "optional: put that decorator above this one, or use a callable",
            )
    return shown


def _of_all_arguments(function: Callable[..., Any]) -> MakeKey:
    name = automatic_name(function)
    arguments = _Arguments(function)
    parameters = arguments.parameters
    if parameters and parameters[0].name in ("self", "cls"):
        raise InvalidArgument("key", f"{name} is a method, and {parameters[0].name!r} has no canonical text: {_NEEDED}")
    writers = [canonical_keywords if one.kind is inspect.Parameter.VAR_KEYWORD else canonical for one in parameters]
    has_keywords = canonical_keywords in writers
    for parameter in parameters:
        if parameter.default is not parameter.empty:
            _write_all([canonical], [parameter], (parameter.default,))
    form = f"{_literal(name)}({','.join(f'{_literal(escape(one.name))}=%s' for one in parameters)})"

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        values = arguments.bind(args, kwargs)
        if has_keywords:
            return form % _write_all(writers, parameters, values)
        try:
            return form % tuple(map(canonical, values))
        except NoCanonicalTextError:
            return form % _write_all(writers, parameters, values)

    return make


def _write_all(
    writers: Sequence[Callable[[Any], str]], parameters: Sequence[inspect.Parameter], values: tuple[Any, ...]
) -> tuple[str, ...]:
    texts = []
    for write, parameter, value in zip(writers, parameters, values, strict=True):
        try:
            texts.append(write(value))
        except NoCanonicalTextError as error:
            raise InvalidArgument(
                "key",
                f"the parameter {parameter.name!r} is given a {error}, which has no canonical text: use a callable, or name "
                f"a part in a template (as in 'thing:{{{parameter.name}.id}}')",
            ) from error
    return tuple(texts)


class _Field(NamedTuple):
    """Field of a template."""

    text: str
    parameter: int
    attributes: tuple[str, ...]

    def read(self, values: tuple[Any, ...]) -> str:
        value = values[self.parameter]
        try:
            for name in self.attributes:
                value = getattr(value, name)
            return template_text(value)
        except NoCanonicalTextError as error:
            raise InvalidArgument(
                "key", f"{{{self.text}}} is a {error}, which has no canonical text: name one of its parts"
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
        if fields and not is_separator(between):
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
    # Spaces and control characters would be refused in every call. The letter x stands for values.
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
        raise InvalidArgument("key", f"{template!r}: **{name} has no canonical text; name the parameters, or use a callable")
    if index == 0 and name in ("self", "cls") and not attributes:
        raise InvalidArgument(
            "key", f"{template!r}: {name!r} has no canonical text; name what tells objects apart, as in {{self.id}}"
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
