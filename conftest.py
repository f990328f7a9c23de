"""Settings of all test runs."""

import gc

import hypothesis  # noqa: F401  # its import calls gc.get_referrers, which does not see frozen objects
import pytest


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection.

    Seventeen thousand tests and their modules make a full collection take a second, and many tests need one.
    """
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _what_earlier_modules_left() -> None:
    """Exempt what is left of the tests of earlier modules, too. Their garbage is collected first, and may warn."""
    gc.collect()
    gc.freeze()
