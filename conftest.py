"""Settings of all test runs."""

import gc

import hypothesis  # noqa: F401  # it looks for references to random generators, and would not find those that are frozen


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection.

    Seventeen thousand tests and their modules make a full collection take two seconds, and many tests need one.
    """
    gc.freeze()
