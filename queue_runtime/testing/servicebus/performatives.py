"""The performatives of AMQP 1.0, as dataclasses that read themselves from described lists and back.

https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from queue_runtime.testing.servicebus.amqp_types import (
    NULL,
    Array,
    Described,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
    encode_as,
    encode_items,
)
from queue_runtime.testing.servicebus.errors import DecodeError


class Composite:
    """A described list whose items have names. Null and missing items are their defaults."""

    code: ClassVar[int]
    items: ClassVar[Sequence[tuple[str, Any, Any]]]
    """Name, kind and default of each; `MISSING` for those that a peer must send."""
    shortened: ClassVar[bool] = True
    """Whether items at the end that have their default are left out, as they may be."""

    @classmethod
    def read(cls, values: Any) -> Self:
        """Return the composite of these list items; `DecodeError` names the first that is wrong."""
        if not isinstance(values, list) or len(values) > len(cls.items):
            raise DecodeError(f"{cls.__name__.lower()} is a list of at most {len(cls.items)} items")
        read = {}
        for (name, kind, default), value in zip(cls.items, values, strict=False):
            if value is None:
                if default is MISSING:
                    raise DecodeError(f"{cls.__name__.lower()} lacks {name.replace('_', '-')}")
                value = default
            elif kind in _COMPOSITE_KINDS:
                value = _composite(cls, name, kind, value)
            elif not _is(kind, value):
                raise DecodeError(f"{cls.__name__.lower()}: {name.replace('_', '-')} cannot be {value!r:.60}")
            read[name] = value
        for name, _kind, default in cls.items[len(read) :]:
            if default is MISSING:
                raise DecodeError(f"{cls.__name__.lower()} lacks {name.replace('_', '-')}")
        return cls(**read)

    def encode(self) -> bytes:
        parts = []
        last = 0
        for name, kind, default in self.items:
            value = getattr(self, name)
            if value is None:
                parts.append(NULL)
            elif isinstance(value, Composite):
                parts.append(value.encode())
            else:
                parts.append(encode(value) if kind in _ANY_KINDS else encode_as(kind, value))
            if value != default:
                last = len(parts)
        return (
            b"\x00\x53" + bytes((self.code,)) + encode_items(0xC0, parts[:last] if self.shortened else parts)
        )


C = TypeVar("C", bound=Composite)

_BY_CODE: dict[int, type[Composite]] = {}


def amqp(kind: Any, *, default: Any = MISSING) -> Any:
    """Declare an item of *kind*: a class of `amqp_types`, or of this module."""
    if default is MISSING:
        return field(metadata={"kind": kind})
    return field(default=default, metadata={"kind": kind})


@dataclass_transform(kw_only_default=True, field_specifiers=(amqp,))
def composite(code: int) -> Callable[[type[C]], type[C]]:
    """Make a dataclass of the class, whose described lists have the descriptor *code*."""

    def build(cls: type[C]) -> type[C]:
        built: Any = dataclass(slots=True, kw_only=True)(cls)
        built.code = code
        built.items = [(item.name, item.metadata["kind"], item.default) for item in dataclasses.fields(built)]
        _BY_CODE[code] = built
        return cast(type[C], built)

    return build


@composite(0x1D)
class Error(Composite):
    shortened = False  # the SDK looks at all three without counting them

    condition: str = amqp(Symbol)
    description: str | None = amqp(str, default=None)
    info: dict[Any, Any] | None = amqp(dict, default=None)


# -- outcomes of deliveries ---------------------------------------------------------------------------


class Outcome(Composite):
    """What became of a delivery. `Received` is none in this sense: more may come."""


@composite(0x23)
class Received(Outcome):
    section_number: int = amqp(UInt, default=0)
    section_offset: int = amqp(ULong, default=0)


@composite(0x24)
class Accepted(Outcome):
    pass


@composite(0x25)
class Rejected(Outcome):
    error: Error | None = amqp(Error, default=None)


@composite(0x26)
class Released(Outcome):
    pass


@composite(0x27)
class Modified(Outcome):
    delivery_failed: bool | None = amqp(bool, default=None)
    undeliverable_here: bool | None = amqp(bool, default=None)
    message_annotations: dict[Any, Any] | None = amqp(dict, default=None)


# -- where links lead ---------------------------------------------------------------------------------


@composite(0x28)
class Source(Composite):
    address: str | None = amqp(str, default=None)
    durable: int | None = amqp(UInt, default=None)
    expiry_policy: str | None = amqp(Symbol, default=None)
    timeout: int | None = amqp(UInt, default=None)
    dynamic: bool | None = amqp(bool, default=None)
    dynamic_node_properties: dict[Any, Any] | None = amqp(dict, default=None)
    distribution_mode: str | None = amqp(Symbol, default=None)
    filter: dict[Any, Any] | None = amqp(dict, default=None)
    default_outcome: Any = amqp(object, default=None)
    outcomes: Any = amqp(object, default=None)
    capabilities: Any = amqp(object, default=None)


@composite(0x29)
class Target(Composite):
    address: str | None = amqp(str, default=None)
    durable: int | None = amqp(UInt, default=None)
    expiry_policy: str | None = amqp(Symbol, default=None)
    timeout: int | None = amqp(UInt, default=None)
    dynamic: bool | None = amqp(bool, default=None)
    dynamic_node_properties: dict[Any, Any] | None = amqp(dict, default=None)
    capabilities: Any = amqp(object, default=None)


# -- connections, sessions, links ---------------------------------------------------------------------


@composite(0x10)
class Open(Composite):
    container_id: str = amqp(str)
    hostname: str | None = amqp(str, default=None)
    max_frame_size: int = amqp(UInt, default=2**32 - 1)
    channel_max: int = amqp(UShort, default=2**16 - 1)
    idle_time_out: int | None = amqp(UInt, default=None)
    outgoing_locales: Any = amqp(object, default=None)
    incoming_locales: Any = amqp(object, default=None)
    offered_capabilities: Any = amqp(object, default=None)
    desired_capabilities: Any = amqp(object, default=None)
    properties: dict[Any, Any] | None = amqp(dict, default=None)


@composite(0x11)
class Begin(Composite):
    remote_channel: int | None = amqp(UShort, default=None)
    next_outgoing_id: int = amqp(UInt)
    incoming_window: int = amqp(UInt)
    outgoing_window: int = amqp(UInt)
    handle_max: int = amqp(UInt, default=2**32 - 1)
    offered_capabilities: Any = amqp(object, default=None)
    desired_capabilities: Any = amqp(object, default=None)
    properties: dict[Any, Any] | None = amqp(dict, default=None)


@composite(0x12)
class Attach(Composite):
    name: str = amqp(str)
    handle: int = amqp(UInt)
    role: bool = amqp(bool)  # False: who sends this is the link's sender
    snd_settle_mode: int = amqp(UByte, default=2)
    rcv_settle_mode: int = amqp(UByte, default=0)
    source: Source | None = amqp(Source, default=None)
    target: Target | None = amqp(Target, default=None)
    unsettled: dict[Any, Any] | None = amqp(dict, default=None)
    incomplete_unsettled: bool = amqp(bool, default=False)
    initial_delivery_count: int | None = amqp(UInt, default=None)
    max_message_size: int | None = amqp(ULong, default=None)
    offered_capabilities: Any = amqp(object, default=None)
    desired_capabilities: Any = amqp(object, default=None)
    properties: dict[Any, Any] | None = amqp(dict, default=None)


@composite(0x13)
class Flow(Composite):
    next_incoming_id: int | None = amqp(UInt, default=None)
    incoming_window: int = amqp(UInt)
    next_outgoing_id: int = amqp(UInt)
    outgoing_window: int = amqp(UInt)
    handle: int | None = amqp(UInt, default=None)
    delivery_count: int | None = amqp(UInt, default=None)
    link_credit: int | None = amqp(UInt, default=None)
    available: int | None = amqp(UInt, default=None)
    drain: bool = amqp(bool, default=False)
    echo: bool = amqp(bool, default=False)
    properties: dict[Any, Any] | None = amqp(dict, default=None)


@composite(0x14)
class Transfer(Composite):
    handle: int = amqp(UInt)
    delivery_id: int | None = amqp(UInt, default=None)
    delivery_tag: bytes | None = amqp(bytes, default=None)
    message_format: int | None = amqp(UInt, default=None)
    settled: bool | None = amqp(bool, default=None)
    more: bool = amqp(bool, default=False)
    rcv_settle_mode: int | None = amqp(UByte, default=None)
    state: Outcome | None = amqp(Outcome, default=None)
    resume: bool = amqp(bool, default=False)
    aborted: bool = amqp(bool, default=False)
    batchable: bool = amqp(bool, default=False)


@composite(0x15)
class Disposition(Composite):
    role: bool = amqp(bool)  # True: from the receiver of the deliveries
    first: int = amqp(UInt)
    last: int | None = amqp(UInt, default=None)
    settled: bool = amqp(bool, default=False)
    state: Outcome | None = amqp(Outcome, default=None)
    batchable: bool = amqp(bool, default=False)


@composite(0x16)
class Detach(Composite):
    handle: int = amqp(UInt)
    closed: bool = amqp(bool, default=False)
    error: Error | None = amqp(Error, default=None)


@composite(0x17)
class End(Composite):
    error: Error | None = amqp(Error, default=None)


@composite(0x18)
class Close(Composite):
    error: Error | None = amqp(Error, default=None)


# -- SASL ---------------------------------------------------------------------------------------------


@composite(0x40)
class SaslMechanisms(Composite):
    sasl_server_mechanisms: Array = amqp(object)


@composite(0x41)
class SaslInit(Composite):
    mechanism: str = amqp(Symbol)
    initial_response: bytes | None = amqp(bytes, default=None)
    hostname: str | None = amqp(str, default=None)


@composite(0x44)
class SaslOutcome(Composite):
    outcome: int = amqp(UByte)
    additional_data: bytes | None = amqp(bytes, default=None)


_COMPOSITE_KINDS = {Error, Outcome, Source, Target}
_ANY_KINDS = {object, dict}
_INTEGERS = {UByte, UShort, UInt, ULong, Timestamp}


def _is(kind: type, value: Any) -> bool:
    if kind in _INTEGERS:
        return type(value) is int
    return isinstance(value, str if kind is Symbol else kind)


def _composite(cls: type[Composite], name: str, kind: type[Composite], value: Any) -> Composite:
    if not isinstance(value, Described):
        raise DecodeError(f"{cls.__name__.lower()}: {name} is a described list, not {value!r:.60}")
    found = _BY_CODE.get(value.descriptor) if isinstance(value.descriptor, int) else None
    if found is None or not issubclass(found, kind):
        raise DecodeError(f"{cls.__name__.lower()}: {name} cannot be a {value.descriptor!r:.60}")
    return found.read(value.value)


def read_performative(body: bytes) -> tuple[Composite, bytes]:
    """Return what a frame's body says, and the payload behind it; raises `DecodeError`."""
    value, end = decode(body)
    if not isinstance(value, Described) or not isinstance(value.descriptor, int):
        raise DecodeError(f"a frame begins with a performative, not with {value!r:.60}")
    found = _BY_CODE.get(value.descriptor)
    if found is None:
        raise DecodeError(f"no performative has the code {value.descriptor:#x}")
    return found.read(value.value), body[end:]
