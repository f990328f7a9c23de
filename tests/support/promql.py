"""What a PromQL query reads: as much of the language as dashboards and alerts need, and an error for the rest."""

import re
from typing import NamedTuple

AGGREGATIONS = frozenset({"avg", "count", "max", "min", "sum"})
FUNCTIONS = frozenset({"absent", "histogram_quantile", "increase", "rate"})
OVER_RANGES = frozenset({"increase", "rate"})
OPERATORS = ("+", "-", "*", "/", "==", ">", "<", "and")
MATCHES = frozenset({"=", "!=", "=~", "!~"})

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]+\])|(?P<number>\d+(?:\.\d+)?(?![\w.]))|(?P<time>\d+[smhd])"""
    r"""|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|==|[-+*/=<>(){},]))"""
)


class Matcher(NamedTuple):
    label: str
    how: str
    value: str


class Selector(NamedTuple):
    """A metric, as a query names it."""

    metric: str
    matchers: tuple[Matcher, ...]
    function: str
    """What it is given to, such as `rate`; empty where that is an aggregation or nothing."""
    groups: tuple[frozenset[str], ...]
    """Labels that the aggregations around it keep, from the outermost on."""


class NotUnderstood(Exception):
    """A query has what this does not know, or is none."""


def selectors(query):
    """Return every metric of a query, with the conditions on it."""
    reading = _Reading(_tokens(query), query)
    reading.expression("", ())
    reading.expect("end")
    return reading.found


def _tokens(query):
    tokens, place = [], 0
    query = query.rstrip()
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            raise NotUnderstood(f"{query[place:]!r} in {query!r}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return [*tokens, ("end", "")]


class _Reading:
    def __init__(self, tokens, query):
        self._tokens = tokens
        self._query = query
        self.found = []

    def expect(self, kind, text=None):
        if self._tokens[0][0] != kind or text not in (None, self._tokens[0][1]):
            raise NotUnderstood(f"{text or kind} is needed, not {self._tokens[0][1]!r}, in {self._query!r}")
        return self._tokens.pop(0)[1]

    def takes(self, text):
        if self._tokens[0][1] != text or self._tokens[0][0] not in ("sign", "name"):
            return False
        self._tokens.pop(0)
        return True

    def expression(self, function, groups):
        self._operand(function, groups)
        while any(self.takes(sign) for sign in OPERATORS):
            self._operand(function, groups)

    def _operand(self, function, groups):
        kind, text = self._tokens[0]
        if kind == "number":
            self.expect("number")
        elif self.takes("("):
            self.expression(function, groups)
            self.expect("sign", ")")
        elif text in AGGREGATIONS:
            self.expect("name")
            labels = frozenset(self._list(lambda: self.expect("name")) if self.takes("by") else ())
            self.expect("sign", "(")
            self.expression("", (*groups, labels))
            self.expect("sign", ")")
        elif kind == "name" and self._tokens[1][1] == "(":
            if text not in FUNCTIONS:
                raise NotUnderstood(f"{text!r} in {self._query!r}")
            self.expect("name")
            self._list(lambda: self.expression(text, groups))
        else:
            self._selector(function, groups)

    def _selector(self, function, groups):
        metric = self.expect("name")
        matchers = self._list(self._matcher, "{", "}") if self._tokens[0][1] == "{" else []
        has_range = self._tokens[0][0] == "range"
        if has_range:
            self.expect("range")
        if has_range != (function in OVER_RANGES):
            raise NotUnderstood(f"{metric} with {function or 'no function'} and {'a' if has_range else 'no'} range")
        if self.takes("offset"):
            self.expect("time")
        self.found.append(Selector(metric, tuple(matchers), function, groups))

    def _matcher(self):
        label, how, value = self.expect("name"), self.expect("sign"), self.expect("string")
        if how not in MATCHES:
            raise NotUnderstood(f"{label} {how} {value}")
        return Matcher(label, how, value[1:-1])

    def _list(self, element, begin="(", end=")"):
        self.expect("sign", begin)
        elements = []
        while not self.takes(end):
            if elements:
                self.expect("sign", ",")
            elements.append(element())
        return elements
