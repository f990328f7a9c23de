"""What memcached answers, byte for byte: one table of cases, run on the fake server and on real ones.

Tests against the fake are useful because both pass. If only one of them passes a case, the fake is wrong, or that release of
memcached differs. The case then gets `since` or `until`.
"""

from tests.contracts.classic_cases import CLASSIC_CASES
from tests.contracts.error_cases import ERROR_CASES
from tests.contracts.meta_cases import META_CASES
from tests.contracts.operator_cases import OPERATOR_CASES
from tests.contracts.recipe_cases import RECIPE_CASES
from tests.contracts.running import Case, RawClient, SocketClient, byte_by_byte, run_case

__all__ = ["CASES", "Case", "RawClient", "SocketClient", "byte_by_byte", "cases_for", "run_case"]

CASES: list[Case] = [*META_CASES, *RECIPE_CASES, *ERROR_CASES, *CLASSIC_CASES, *OPERATOR_CASES]

assert len({case.name for case in CASES}) == len(CASES), "two cases have the same name"


def cases_for(version: str, server: str = "plain") -> list[Case]:
    """The cases that hold for a release, on a server started in one of the ways that `Case.server` names."""
    return [case for case in CASES if case.server == server and case.applies_to(version)]
