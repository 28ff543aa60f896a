"""How far the models look: a few seconds each, the same histories in every run; or much further, at random.

A model plays random histories against the real thing and against the plainest description of what it should
do, and fails with the shortest history on which the two part. Every machine says how many histories it plays
by default. ``HYPOTHESIS_PROFILE=thorough pytest tests/models`` plays forty times as many, other ones each
time; what it finds is printed as a program of calls, to be kept as a test.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Threads and clocks are met, not waited for, but a busy machine may be slow with both: that is no finding.
settings.register_profile(
    "models",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=100,
)
settings.register_profile(
    "thorough", parent=settings.get_profile("models"), derandomize=False, max_examples=4000
)
