"""What all tests share: the summary of the conformance rows, and how hypothesis goes about its work."""

from hypothesis import settings

from queue_runtime.testing.conformance.report import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

# A slow example on a busy machine is no finding; pytest's own timeout bounds each test.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")
