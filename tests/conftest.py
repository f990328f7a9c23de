"""Settings of property tests."""

from hypothesis import settings

# The deadline of hypothesis is real time. A busy machine exceeds it without a defect.
settings.register_profile("untimed", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=500)  # five times the default, for `make properties`
settings.load_profile("untimed")
