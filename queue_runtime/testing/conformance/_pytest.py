"""Says what is missing if pytest is; else has it show the values of rows that fail."""

from queue_runtime.errors import MissingExtra

try:
    import pytest
except ModuleNotFoundError as exc:
    raise MissingExtra(
        "queue_runtime.testing.conformance needs the package 'pytest'; pip install 'queue_runtime[testing]'"
    ) from exc

MODULES = (
    "content",
    "dead_letters",
    "errors",
    "kit",
    "leases",
    "limits",
    "receiving",
    "session_ends",
    "sessions",
    "settling",
    "threads",
)

pytest.register_assert_rewrite(*(f"{__package__}.{module}" for module in MODULES))
