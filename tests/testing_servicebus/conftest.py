"""One local Service Bus for the tests of it that need a real one."""

from queue_runtime.testing.servicebus.fixtures import local_service_bus

__all__ = ["local_service_bus"]
