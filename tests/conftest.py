"""Settings for all tests."""

from hypothesis import HealthCheck, settings

# A test never asserts a time; a deadline would, and so would the check that examples are made quickly.
settings.register_profile("edgekron", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgekron")
