"""Settings of all test runs."""

import gc

import hypothesis  # noqa: F401  # its import calls gc.get_referrers, which does not see frozen objects


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection.

    Seventeen thousand tests and their modules make a full collection take a second, and many tests need one.
    """
    gc.freeze()
