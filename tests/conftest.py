"""What every test folder may use, and one hypothesis profile: the same examples in every run."""

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

pytest_plugins = ["engine_fixtures", "llama_cpp", "tls_fixtures"]
