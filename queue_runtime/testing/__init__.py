"""What tests of programs and providers use: a clock, the conformance kit, local endpoints.

Importing this loads neither pytest nor an SDK. `queue_runtime.testing.conformance` needs pytest;
`queue_runtime.testing.sqs` needs boto3.
"""

from queue_runtime.testing.clock import FakeClock

__all__ = ["FakeClock"]
