"""Starts the local Service Bus: ``python -m queue_runtime.testing.servicebus QUEUE[:sessions] ...``."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import ssl
import sys
from dataclasses import replace

from queue_runtime.testing.servicebus.control import ControlServer
from queue_runtime.testing.servicebus.local import SAS_KEY, connection_string
from queue_runtime.testing.servicebus.namespace import Namespace
from queue_runtime.testing.servicebus.queues import QueueSettings
from queue_runtime.testing.servicebus.server import Server

MADE = QueueSettings(max_delivery=100, duplicate_window=600.0)
"""As README.md makes one at Azure."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C, or until the input ends where that is asked for.

    When ready it says where: with queues in lines for a shell, without in one of JSON for a program,
    ``{"port": N, "control_port": M}``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.tls_cert is None) != (options.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    if options.queues and options.tls_cert is not None:
        parser.error("with TLS make queues by the control port: a connection string cannot tell it all")
    try:
        asyncio.run(_serve(options))
    except OSError as exc:
        sys.stderr.write(f"cannot serve: {exc}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m queue_runtime.testing.servicebus",
        description="A small Service Bus for tests and local runs: AMQP 1.0, in memory, gone when it stops.",
    )
    parser.add_argument(
        "queues",
        nargs="*",
        type=_queue,
        metavar="QUEUE[:sessions]",
        help="a queue to make, with sessions if it says so; its dead-letter queue is there by itself",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where AMQP is served (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="of AMQP; 0, the default, picks a free one")
    parser.add_argument(
        "--control-port", type=int, default=0, help="of HTTP on 127.0.0.1; 0, the default, picks a free one"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="serve TLS with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="and this key (PEM)")
    parser.add_argument("--sas-key", metavar="KEY", help="take only SAS tokens signed with it, and JWTs")
    parser.add_argument(
        "--with-input",
        action="store_true",
        help="stop when the input ends, as it does with who has started this",
    )
    return parser


def _queue(text: str) -> tuple[str, QueueSettings]:
    name, _, kind = text.partition(":")
    if kind not in ("", "sessions"):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME or NAME:sessions")
    settings = replace(MADE, sessions=kind == "sessions")
    try:
        Namespace().put(name, settings)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return name, settings


def _ready(options: argparse.Namespace, port: int, control_port: int) -> str:
    """What is written when all is up."""
    if not options.queues:
        return json.dumps({"port": port, "control_port": control_port})
    string = connection_string(f"sb://{options.host}:{port}", options.sas_key or SAS_KEY)
    variables = {"QUEUE_RUNTIME_URL": "servicebus://", "AZURE_SERVICEBUS_CONNECTION_STRING": string}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(lines)


async def _serve(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if options.with_input:
        # Nobody writes to it: it can be read when the other end is closed, by an exit or by a death.
        loop.add_reader(sys.stdin.fileno(), stopping.set)
    context = None
    if options.tls_cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
    namespace = Namespace()
    for name, settings in options.queues:
        namespace.put(name, settings)
    server = Server(
        namespace, host=options.host, port=options.port, ssl_context=context, sas_key=options.sas_key
    )
    control = ControlServer(namespace, server)
    port = await server.start()
    try:
        control_port = await control.start(options.control_port)
        try:
            sys.stdout.write(_ready(options, port, control_port) + "\n")
            sys.stdout.flush()
            await stopping.wait()
        finally:
            await control.stop()
    finally:
        await server.stop()


if __name__ == "__main__":
    sys.exit(main())
