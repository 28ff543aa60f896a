"""Says what is missing if pytest is; else has it show the values of rows that fail."""

from queue_runtime.errors import MissingExtra

try:
    import pytest
except ModuleNotFoundError as exc:
    raise MissingExtra(
        "queue_runtime.testing.conformance needs the package 'pytest'; pip install 'queue_runtime[testing]'"
    ) from exc

MODULES = (
    "by_id",
    "configuring",
    "content",
    "dead_letters",
    "errors",
    "kit",
    "leases",
    "limits",
    "looking",
    "receiving",
    "scheduling",
    "sending",
    "session_ends",
    "session_states",
    "sessions",
    "settling",
    "sharing",
    "threads",
    "time_to_live",
    "together",
)

pytest.register_assert_rewrite(*(f"{__package__}.{module}" for module in MODULES))
