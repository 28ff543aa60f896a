"""A local Azure Service Bus for tests and for development without Docker: AMQP 1.0, in memory.

Importing this loads neither pytest nor the SDK; the pytest fixture is in
`queue_runtime.testing.servicebus.fixtures`.
"""

from queue_runtime.testing.servicebus.control_port import ControlPort
from queue_runtime.testing.servicebus.local import LocalServiceBus

__all__ = ["ControlPort", "LocalServiceBus"]
