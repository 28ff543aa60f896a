"""How many histories a machine plays, by the profile that is chosen (see conftest.py)."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

unhurried = pytest.mark.timeout(600)
"""For every machine: a failing one looks for its shortest history, which takes minutes. None waits for a
thread without a limit of its own."""


def sized(examples: int, *, steps: int) -> settings:
    """*examples* histories of up to *steps* steps by default; with another profile as many times more as its
    own number is above a hundred."""
    profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "models"))
    share = profile.max_examples / 100
    return settings(profile, max_examples=max(1, round(examples * share)), stateful_step_count=steps)
