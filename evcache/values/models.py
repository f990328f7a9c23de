"""Values that msgspec has no form for: pydantic models, paths, and addresses. Hooks for encoders and decoders.

The package does not depend on pydantic. A process that has a model has imported pydantic, so `sys.modules` has it.
"""

from __future__ import annotations

import ipaddress
import pathlib
import sys
from typing import Annotated, Any, get_args, get_origin

from evcache.zones.errors import InvalidArgument

# Types whose constructor reads the text of `str` back.
TEXTS: tuple[type, ...] = (
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)

# The first release with `by_name`, which makes aliases unimportant.
_LEAST_PYDANTIC = (2, 11)


def is_model(kind: object) -> bool:
    """Return True for a class of pydantic models."""
    pydantic = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None)  # None while another thread imports it
    return base is not None and isinstance(kind, type) and issubclass(kind, base)


def to_plain(value: Any) -> Any:
    """Return a form of the value that msgspec can encode. Raises TypeError."""
    if is_model(type(value)):
        # By name, because an alias for validation may differ from the one for serialization. Omits computed fields.
        return value.model_dump(round_trip=True, by_alias=False)
    if isinstance(value, TEXTS) or _is_url(value):
        return str(value)
    raise TypeError(f"objects of type {type(value).__name__} have no stored form")


def from_plain(kind: Any, value: Any) -> Any:
    """Return the value of type `kind` that `to_plain` made `value` of. Raises TypeError or ValueError."""
    if kind is object:
        return value
    if isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if is_model(kind):
            return _validate(kind, value)
        if issubclass(kind, TEXTS) and isinstance(value, str):
            return kind(value)  # type: ignore[call-arg]  # each of TEXTS takes one str
    raise TypeError(f"expected {getattr(kind, '__name__', kind)}, got {type(value).__name__}")


def check_model(model: Any, argument: str) -> list[Any]:
    """Refuse a pydantic model whose dump loses a field. Return the types of its fields, which the caller has to check.

    Raises:
        InvalidArgument: A field is excluded from dumps, or pydantic is too old.
        NameError: A name in an annotation of the model is not defined yet.
    """
    pydantic = sys.modules["pydantic"]
    version = tuple(int(part) for part in pydantic.VERSION.split(".")[:2])
    if version < _LEAST_PYDANTIC:
        raise InvalidArgument(argument, f"{model.__qualname__} needs pydantic 2.11 or newer, not {pydantic.VERSION}")
    if not model.__pydantic_complete__ and not model.model_rebuild(raise_errors=False):
        raise NameError(f"{model.__qualname__} has annotations with names that are not defined")
    for name, field in model.model_fields.items():
        if field.exclude:
            raise InvalidArgument(argument, f"{model.__qualname__}.{name} would be lost: it is excluded from dumps")
    return [field.annotation for field in model.model_fields.values()]


def parts_of(annotation: Any) -> list[Any]:
    """Return the arguments of a generic type or union, as far as they are types."""
    if get_origin(annotation) is Annotated:
        return [annotation.__origin__]
    return [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]


def is_pydantics(kind: type) -> bool:
    """Return True for a field type that pydantic stores as text or number. False for secrets, which it dumps as stars."""
    return kind.__module__.split(".")[0] in ("pydantic", "pydantic_core") and "Secret" not in kind.__name__


def _is_url(value: Any) -> bool:
    kind = type(value)
    return kind.__module__.split(".")[0] in ("pydantic", "pydantic_core") and kind.__name__.endswith(("Url", "Dsn"))


def _validate(model: Any, value: Any) -> Any:
    from_name = {"strict": False, "by_name": True, "by_alias": False}
    validation_error = sys.modules["pydantic"].ValidationError
    try:
        return model.model_validate(value, **from_name)
    except validation_error as error:
        # The text of the error shows the input. Values of a cache must not reach logs.
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        where = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:3])
        raise ValueError(f"{error.error_count()} validation errors: {where}") from None
