"""The faults of `evcache doctor`, and the page that lists them."""

from pathlib import Path

from evcache.admin.doctor.catalog import FAULTS, fault_table
from evcache.admin.doctor.findings import Subject, Verdict

ROOT = Path(__file__).parents[4]
JUDGES = ROOT / "evcache" / "admin" / "doctor" / "judges"


def test_the_page_has_the_table_of_the_code():
    page = (ROOT / "docs" / "operations" / "doctor.md").read_text("utf-8")
    assert fault_table() in page


def test_names_are_unique_and_each_fault_has_a_severity_and_a_fix():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(fault.verdict in (Verdict.WARNING, Verdict.PROBLEM) and fault.fix and fault.meaning for fault in FAULTS)
    assert {fault.subject for fault in FAULTS} == set(Subject)


def test_each_fault_is_used_by_a_judge():
    source = "\n".join(path.read_text("utf-8") for path in JUDGES.glob("*.py"))
    unused = [fault.name for fault in FAULTS if f"{fault.name.replace('-', '_').upper()}" not in source]
    assert unused == []
