"""Docstrings of public functions: one entry for each parameter, and one for each result that their first line does not name."""

import inspect
import re
from itertools import takewhile

import pytest

from tests.support.public_names import PUBLIC, value_of

PARAMETER = re.compile(r"    (\w+): \S")


def functions():
    """Yield each public function of a public class, with its qualified name, once."""
    seen = set()
    for name in PUBLIC:
        kind = value_of(name)
        if not inspect.isclass(kind) or kind in seen or not kind.__module__.startswith("evcache."):
            continue
        seen.add(kind)
        for attribute, member in vars(kind).items():
            function = getattr(member, "__func__", member)  # of a class method
            is_own = inspect.isfunction(function) and function.__name__ == attribute  # and not made by `typing`
            if is_own and (not attribute.startswith("_") or attribute in {"__init__", "__call__"}):
                yield pytest.param(function, id=f"{kind.__module__}.{function.__qualname__}")


def entries(doc, section):
    """Return the lines of a section."""
    _, found, rest = doc.partition(f"\n{section}:\n")
    return list(takewhile(lambda line: line.startswith("    "), rest.splitlines())) if found else []


@pytest.mark.parametrize("function", [*functions()])
def test_a_public_function_documents_its_parameters_and_result(function):
    doc = inspect.getdoc(function) or ""
    if function.__name__ == "__init__" and function.__doc__ is None:
        return  # the fields of a dataclass and the attributes of an error have docstrings
    names = [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]
    assert [match[1] for line in entries(doc, "Args") if (match := PARAMETER.match(line))] == names
    returns = inspect.get_annotations(function).get("return")
    if returns not in {None, "None", "Never"} and function.__name__ != "__init__":
        assert re.match(r"(Return|Yield)\b|.*\breturns?\b", doc) or entries(doc, "Returns") or entries(doc, "Yields"), doc


def test_public_functions_are_found():
    assert len(list(functions())) > 100
