"""Settings for all tests."""

from hypothesis import settings

# A test never asserts a time, and a deadline would.
settings.register_profile("edgekron", deadline=None)
settings.load_profile("edgekron")
