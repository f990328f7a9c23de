"""Fixtures of tests of the transport."""

import pytest

from tests.support.cores import CORES, running


@pytest.fixture(scope="module", params=CORES, ids=lambda core: core.name)
def each_core(request):
    """The core on which connections run. The module's tests run on each."""
    with running(request.param) as core:
        yield core
