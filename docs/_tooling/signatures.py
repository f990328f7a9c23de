"""Extension of the docstring reader: signatures of the reference as a caller sees them.

- `EVCache` has plain functions under `@coroutine_function`, which saves a frame for each call. A caller awaits them like any
  async function, so they are shown as async functions with the awaited type.
- A default that is a constant of a module is shown as its value: `0.1` in place of `READ_TIMEOUT_SECONDS`.
"""

from typing import Any

import griffe

DECORATOR = "coroutine_function"


class Signatures(griffe.Extension):
    """Changes functions and fields after all modules were read."""

    def on_function(self, *, func: griffe.Function, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Change one function."""
        for parameter in func.parameters:
            parameter.default = _value(parameter.default, loader)
        if any(decorator.callable_path.endswith(f".{DECORATOR}") for decorator in func.decorators):
            func.labels.add("async")
            if isinstance(func.returns, griffe.ExprSubscript) and isinstance(func.returns.slice, griffe.ExprTuple):
                func.returns = func.returns.slice.elements[-1]

    def on_attribute(self, *, attr: griffe.Attribute, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Change one field of a class. Its labels say no more than its place does."""
        if attr.parent is None or not attr.parent.is_class:
            return
        if "class-attribute" in attr.labels:
            attr.value = _value(_default_of_field(attr.value), loader)
        else:
            # A constructor sets it. Its type is that of the argument of this name, and the expression is of no interest.
            attr.value = None
            constructor = attr.parent.members.get("__init__")
            if attr.annotation is None and constructor is not None and attr.name in constructor.parameters:
                attr.annotation = constructor.parameters[attr.name].annotation
        attr.labels -= {"class-attribute", "instance-attribute"}


def _default_of_field(value: Any) -> Any:
    """Return the default in `dataclasses.field(...)`, or `value` if it is something else."""
    if not isinstance(value, griffe.ExprCall) or value.canonical_path != "dataclasses.field":
        return value
    arguments = {argument.name: argument.value for argument in value.arguments if isinstance(argument, griffe.ExprKeyword)}
    if "default_factory" in arguments:
        return griffe.ExprCall(arguments["default_factory"], [])
    return arguments.get("default")


def _value(default: Any, loader: griffe.GriffeLoader) -> Any:
    """Return the value of a constant of a module, or `default` if it is something else."""
    while isinstance(default, griffe.ExprName | griffe.ExprAttribute) and default.canonical_name.isupper():
        try:
            constant = loader.modules_collection[default.canonical_path]
        except (KeyError, griffe.AliasResolutionError):
            return default
        is_of_module = constant.is_attribute and constant.parent is not None and constant.parent.is_module
        if not is_of_module or constant.value is None:
            return default
        default = constant.value
    return default
