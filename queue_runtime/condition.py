"""The condition variable of the library, which a signal handler cannot leave locked."""

from __future__ import annotations

import threading
from operator import attrgetter


class Condition(threading.Condition):
    """As its base, but that a ``with`` block takes and leaves the lock without a step of Python between.

    A signal handler that raises (Ctrl-C, the time limit of a job runner) does so on the main thread at the
    start or the end of any function in Python. The base's ``__exit__`` is one: the lock would stay taken for
    ever, and every thread that needs it would stand still.
    """

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))
