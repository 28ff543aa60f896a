"""Numbers that the programs started here and the tests that start them agree on."""

from __future__ import annotations

OPEN_FOR = 2.0
"""Seconds for which the breaker of served.py refuses."""

SUBMITTED = 100
"""Messages of a parent that submits."""

CHILDREN = 4
"""How many processes.py starts."""

MESSAGES = 5
"""How many each of them sends."""

THREADS = 8
"""Of the child of unheard_fork.py."""
