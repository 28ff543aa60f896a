"""The Service Bus provider: ``servicebus://NAMESPACE``, queues with and without sessions."""

from queue_runtime.providers.servicebus.client import create as create
