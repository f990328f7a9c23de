"""Extension of the docstring reader: an operation that returns a coroutine is shown as an async function.

`EVCache` has plain functions under `@coroutine_function`, which saves a frame for each call. A caller awaits them like any
async function, so the reference shows the awaited type.
"""

from typing import Any

import griffe

DECORATOR = "coroutine_function"


class Coroutines(griffe.Extension):
    """Marks such functions as async, and takes the awaited type out of `Coroutine[object, None, T]`."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Change one function, after its module was read."""
        if not any(decorator.callable_path.endswith(f".{DECORATOR}") for decorator in func.decorators):
            return
        func.labels.add("async")
        if isinstance(func.returns, griffe.ExprSubscript) and isinstance(func.returns.slice, griffe.ExprTuple):
            func.returns = func.returns.slice.elements[-1]
