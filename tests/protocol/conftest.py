"""The same examples in every run, and as many as a quick run can bear."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lmdeck",
    derandomize=True,
    max_examples=80,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lmdeck")
