"""Alert rules use metrics, labels and values that clients export, and each has a test of its own and a row on its page."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import yaml

import evcache
from evcache.hooks import HintEnd
from evcache.telemetry.metric_table import DURATION, METRICS
from tests.support.promql import selectors

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]]
TESTS = yaml.safe_load((FOLDER / "tests.yml").read_text("utf-8"))["tests"]
PAGE = (ROOT / "docs" / "operations" / "alerts.md").read_text("utf-8")

# Labels that Prometheus adds.
OF_PROMETHEUS = frozenset({"instance", "job"})
OF_DURATIONS = ("db.system.name", "db.operation.name", "error.type")

ENDS = {"counter": "_total", "histogram": "_count"}


def in_prometheus(name, kind, unit):
    """Return the name that the exporter gives to a metric."""
    return name.replace(".", "_") + {"By": "_bytes", "s": "_seconds"}.get(unit, "") + ENDS.get(kind, "")


LABELS = {
    in_prometheus(name, kind, unit): {"db_namespace", *(attribute.replace(".", "_") for attribute in attributes)}
    for name, kind, unit, attributes in [
        *((metric.name, metric.kind, metric.unit, metric.attributes) for metric in METRICS),
        (DURATION, "histogram", "s", OF_DURATIONS),
    ]
}

# Causes that a metric names, but the package does not export.
ERRORS = {name for module in (evcache, evcache.zones.errors, evcache.errors) for name in dir(module)}
VALUES = {
    "error_type": ERRORS,
    "evcache_fallback_reason": ERRORS | {"miss"},
    "evcache_hint_end": set(get_args(HintEnd)),
    "evcache_result": {"hit", "miss", "met", "unmet", "won", "lost"},
    "evcache_zone_local": {"true", "false"},
    "db_system_name": {"memcached"},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_uses_exported_metrics(rule):
    found = selectors(rule["expr"])
    assert found
    for selector in found:
        assert selector.metric in LABELS, selector.metric
        used = {matcher.label for matcher in selector.matchers}.union(*selector.groups)
        assert used <= LABELS[selector.metric] | OF_PROMETHEUS, selector.metric
        assert ("rate" in selector.function or "increase" in selector.function) == selector.metric.endswith(
            tuple(ENDS.values())
        )
        for matcher in selector.matchers:
            literals = {literal for literal in matcher.value.split("|") if literal}
            assert literals <= VALUES[matcher.label], (matcher.label, literals - VALUES[matcher.label])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_texts_name_labels_that_the_rule_keeps(rule):
    kept = set().union(*(selector.groups[0] for selector in selectors(rule["expr"]) if selector.groups))
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= kept
    assert rule["annotations"].keys() == {"summary", "description"}
    assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_rule_fires_in_a_test_of_promtool():
    fired = {name for test in TESTS for name in re.findall(r'alertname="(\w+)"', yaml.safe_dump(test, width=10**6))}
    assert fired == {rule["alert"] for rule in RULES}


def test_page_has_each_alert_with_its_severity():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yml"], ["test", "rules", "tests.yml"]], ids=" ".join)
def test_promtool_accepts_the_rules(arguments):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: it is in the package prometheus of Debian")
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
