"""Settings of all test runs."""

import gc


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection.

    Seventeen thousand tests and their modules make a full collection take two seconds, and many tests need one.
    """
    gc.freeze()
