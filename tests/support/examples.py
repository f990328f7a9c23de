"""Numbers of examples of property tests."""

from hypothesis import settings


def examples(share):
    """Return a share of the number of examples of the profile.

    It is for tests whose examples are long or very short. `make properties` runs all tests with the profile "thorough".
    """
    return max(1, round(settings.default.max_examples * share))
