"""Passages of prose in a Python file: docstrings, comments, log messages and error texts."""

import ast
import re

from tests.language.passages import Passage, of_plain_text

LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
LOGGER = re.compile(r"_?log(ger)?|LOG(GER)?|logging")

WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
VISITED = frozenset({ast.Constant, ast.JoinedStr, ast.Call, ast.Raise, *WITH_DOCSTRINGS})

# Comments that tools read.
DIRECTIVE = re.compile(r"\s*(noqa|type:|fmt:|ruff:|pragma|mypy:|pyright:|!|-\*-).*")
COMMENT_START = re.compile(r"#+ ?")


def of_python(text, error_names=frozenset(), tree=None):
    """Return the passages of a module. A call of a name in `error_names` makes an error, raised at once or later.

    `tree` is the parsed module. If None, it is parsed here.
    """
    tree = ast.parse(text) if tree is None else tree
    found = []
    strings = []
    for node in ast.walk(tree):
        if type(node) in VISITED:
            _visit(node, found, strings, error_names)
    found += _comments(text, strings)
    return found


def error_names(trees):
    """Return the names of the classes in `trees` that are exceptions, by name only."""
    bases = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(_last_name(base) for base in node.bases)
    names = {
        "Exception",
        "BaseException",
        "ValueError",
        "TypeError",
        "RuntimeError",
        "TimeoutError",
        "OSError",
        "ConnectionError",
    }
    while True:
        more = {name for name, of in bases.items() if of & names} - names
        if not more:
            return frozenset(names)
        names |= more


def _last_name(node):
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _visit(node, found, strings, error_names):
    """Add the passages of one node, and the span of a string."""
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, str | bytes):
            return
        strings.append((node.lineno, node.col_offset, node.end_lineno, node.end_col_offset))
    elif isinstance(node, ast.JoinedStr):
        strings.append((node.lineno, node.col_offset, node.end_lineno, node.end_col_offset))
    elif isinstance(node, ast.Call):
        _message(node, found)
        if _last_name(node.func) in error_names:
            found += _texts(node, "error")
    elif isinstance(node, ast.Raise):
        if isinstance(node.exc, ast.Call) and _last_name(node.exc.func) not in error_names:
            found += _texts(node.exc, "error")
    else:
        _docstrings(node, node.body, found)


def _docstrings(node, body, found):
    """Add the docstring of a module, class or function, and those of attributes in it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        owner = "function"
        names = {_last_name(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list}
        if names & {"property", "cached_property", "fixture", "setter"} or re.fullmatch(r"__\w+__", node.name):
            owner = "property"
    else:
        owner = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "")
    before = None
    for position, statement in enumerate(body):
        if (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        ):
            here = (
                owner if position == 0 and owner else "attribute" if isinstance(before, ast.Assign | ast.AnnAssign) else ""
            )
            if here:
                found += of_plain_text(statement.value.value, statement.lineno, "docstring", here)
        before = statement


def _message(call, found):
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr in LOG_METHODS and LOGGER.fullmatch(_last_name(function.value)):
        arguments = call.args[1:2] if function.attr == "log" else call.args[:1]
        found += [Passage(one.lineno, text, "log") for one in arguments if (text := _text(one))]


def _texts(call, source):
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return [Passage(one.lineno, text, source) for one in arguments if (text := _text(one)) and " " in text]


def _text(node):
    """Return the text of a literal, an f-string or a sum of these, with `X` in place of values; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None and right is None else (left or "X") + (right or "X")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _text(node.left)
    if isinstance(node, ast.IfExp):
        parts = [part for part in (_text(node.body), _text(node.orelse)) if part]
        return ". ".join(parts) or None
    return None


def _comments(text, strings):
    """Return comments: whole lines in a row are one block, and each comment behind code is one of its own."""
    spans = {}
    for first, start, last, end in strings:
        for line in range(first, last + 1):
            spans.setdefault(line, []).append((start if line == first else 0, end if line == last else 1 << 30))
    found = []
    block = []
    began = 0

    def close():
        if block:
            found.extend(of_plain_text("\n".join(block), began, "comment"))
            block.clear()

    for number, line in enumerate(text.split("\n"), 1):
        if "#" not in line:
            close()
            continue
        start = _comment_start(line, spans.get(number, ()))
        if start is None:
            close()
            continue
        whole = not line[:start].strip()
        comment = COMMENT_START.sub("", line[start:], count=1)
        if DIRECTIVE.match(comment):
            _, mark, reason = comment.partition("#")
            close()
            if mark and reason.strip():
                found.append(Passage(number, reason.strip(), "comment"))
        elif whole:
            began = began if block else number
            block.append(comment)
        else:
            close()
            found.append(Passage(number, comment.strip(), "comment"))
    close()
    return found


def _comment_start(line, spans):
    """Return the index of the `#` that begins a comment. Spans of strings are in bytes of UTF-8, as `ast` counts."""
    for match in re.finditer("#", line):
        offset = len(line[: match.start()].encode())
        if not any(start <= offset < end for start, end in spans):
            return match.start()
    return None
