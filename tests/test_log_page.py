"""The page on telemetry lists each log line with its logger and level, because operators search for them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "telemetry.md").read_text("utf-8").partition("\n## Logs\n")[2].partition("\n## ")[0]

# `log` takes its level as an argument: INFO at the end of the event loop, WARNING in `close`.
LEVELS = {"exception": "ERROR", "log": "INFO, WARNING"}


def logger_names(path, text):
    """Return the loggers that the calls of a module use. Journals log under the logger of their subclass."""
    if path.name == "sqlite_journal.py":
        subclasses = [source.read_text("utf-8") for source in (ROOT / "evcache").rglob("*journal.py")]
        return sorted(
            {name for source in subclasses for name in re.findall(r'^    logger = "([\w.]+)"$', source, re.MULTILINE)}
        )
    return re.findall(r'^_log = logging\.getLogger\("([\w.]+)"\)$', text, re.MULTILINE)


def calls():
    """Return the message, loggers and level of each log call of the product."""
    found = set()
    for path in (*(ROOT / "evcache").rglob("*.py"), *(ROOT / "zones").rglob("*.py")):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not re.fullmatch(r"(self\.)?_log\.\w+", ast.unparse(node.func)):
                continue
            method = node.func.attr
            message = node.args[1 if method == "log" else 0]
            assert isinstance(message, ast.Constant), f"{path.name}: the message is no literal: {ast.unparse(message)}"
            names = ", ".join(f"`{name}`" for name in logger_names(path, text))
            found.add((message.value, names, LEVELS.get(method, method.upper())))
    return found


def test_page_lists_each_log_line():
    rows = re.findall(r"^\| `([^|]+)` \| (`[^|]+`) \| ([A-Z, ]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert set(rows) == calls()
    assert len(set(rows)) == len(rows) > 40
    assert len(rows) == PAGE.count("\n| `"), "a row has another form"


def test_messages_begin_in_lower_case_and_end_without_a_period():
    for message, _, _ in calls():
        assert message[0].islower() or message.startswith(("%s", "OpenTelemetry")), message
        assert not message.endswith("."), message


RUNBOOK = (ROOT / "docs" / "operations" / "runbook.md").read_text("utf-8").partition("\n## By log line\n")[2]


def test_runbook_has_an_action_for_each_warning_and_error():
    rows = re.findall(r"^\| `([^|]+)` \| ([A-Z, ]+) \| [^|]+ \|$", RUNBOOK, re.MULTILINE)
    serious = {(message, level) for message, _, level in calls() if "WARNING" in level or "ERROR" in level}
    assert set(rows) == serious
    assert len(rows) == len(set(rows)) == RUNBOOK.count("\n| `") > 35
