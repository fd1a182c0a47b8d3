"""Properties are judged by what is right, not by how busy the machine is just then."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "whatever the load", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("whatever the load")
