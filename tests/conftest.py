"""Settings of property tests."""

from hypothesis import settings

# The deadline of hypothesis is real time. A busy machine exceeds it without a defect.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
