"""What all tests share: the summary of the conformance rows, and how hypothesis goes about its work."""

from hypothesis import settings

pytest_plugins = ["queue_runtime.testing.conformance.report"]

# A slow example on a busy machine is no finding; pytest's own timeout bounds each test.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")
