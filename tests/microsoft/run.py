"""Runs Microsoft's own tests of azure-servicebus, unmodified, against the local Service Bus.

The tests come from the SDK's source distribution, fetched by pip and pinned by hash; beside them stand the
small modules of ``stubs/`` in the place of Azure's test tools. Several processes share the tests, each with a
broker of its own, for most of them wait for time to pass.

Exits with 1 if a test fails that ``exclusions.txt`` does not name, if one that it names passes or is not
there, or if not everything is over after ``--limit`` seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from queue_runtime.testing.servicebus import LocalServiceBus
from tests.microsoft.outcome import Exclusion, collected, judge, read_exclusions, reports

HERE = Path(__file__).parent

VERSION = "7.15.0"
SDIST = f"azure_servicebus-{VERSION}.tar.gz"
SHA256 = "62c73f3d9efbaf0089a375adc5ef992ffe6d7d0b1218b8462265aa30ad352c3e"

TESTS = ("test_queues.py", "test_sessions.py", "test_list_sessions.py")
THEIR_HELPERS = ("utilities.py", "mocks.py")

_DOWNLOAD_TIMEOUT = 300.0
_TEST_TIMEOUT = 400
_POLL = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    installed = importlib.metadata.version("azure-servicebus")
    if installed != VERSION:
        raise SystemExit(f"azure-servicebus {installed} is installed; these are the tests of {VERSION}")
    sdist = _sdist(options.cache)
    exclusions = read_exclusions(HERE / "exclusions.txt")
    with tempfile.TemporaryDirectory(prefix="broker-check-") as directory:
        place = Path(directory)
        _lay_out(sdist, place)
        began = time.monotonic()
        violations = _run(place, exclusions, options)
        seconds = time.monotonic() - began
        outcome = judge(collected(place), reports(place), exclusions, part=bool(options.select))
    say(f"{outcome.text(TESTS)}\n{seconds:.0f} s with {options.workers} processes")
    say(f"delivery ids out of order (Microsoft's tests share receivers between threads): {violations}")
    return 1 if outcome.wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Microsoft's tests against the local Service Bus")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()), help="where the sdist is kept"
    )
    parser.add_argument("--workers", type=int, default=12, help="processes that share the tests")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for everything")
    parser.add_argument("-k", dest="select", default="", help="only tests that match, as pytest's -k")
    return parser.parse_args(arguments)


def _sdist(cache: Path) -> Path:
    """Return the sdist, downloaded with pip (which knows the index) unless it lies in *cache* already."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / SDIST
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wanted = ["--no-binary", "azure-servicebus", "--dest", str(cache), f"azure-servicebus=={VERSION}"]
        subprocess.run([*pip, *wanted], check=True, timeout=_DOWNLOAD_TIMEOUT)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(
            f"{path} has the SHA-256 {found}, not {SHA256}; remove it and see where it came from"
        )
    return path


def _lay_out(sdist: Path, place: Path) -> None:
    with tarfile.open(sdist) as archive:
        for name in (*TESTS, *THEIR_HELPERS):
            member = archive.extractfile(f"azure_servicebus-{VERSION}/tests/{name}")
            assert member is not None, name
            (place / name).write_bytes(member.read())
    for stub in (HERE / "stubs").glob("*.py"):
        shutil.copy(stub, place)
    (place / "pytest.ini").write_text(f"[pytest]\ntimeout = {_TEST_TIMEOUT}\n")


def _run(place: Path, exclusions: Mapping[str, Exclusion], options: argparse.Namespace) -> int:
    """Run the tests to their end or to the limit; return how many delivery ids were out of order."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "--noconftest"]
    command += ["-p", "no:cacheprovider", "-p", "plain_tcp", "-p", "shared_run", "-W", "ignore", *TESTS]
    command += [f"--deselect={test}" for test, each in exclusions.items() if each.kind == "unrun"]
    command += ["-k", options.select] if options.select else []
    deadline = time.monotonic() + options.limit
    with ExitStack() as stack:
        brokers = [stack.enter_context(LocalServiceBus()) for _ in range(options.workers)]
        workers = []
        for number, broker in enumerate(brokers):
            log = stack.enter_context((place / f"log-{number}").open("wb"))
            environment = {
                **os.environ,
                "BROKER_CONNECTION_STRING": broker.connection_string,
                "BROKER_CONTROL_URL": broker.control_url,
                "PYTHONPATH": str(place),
                "SHARED_RUN_DIRECTORY": str(place),
            }
            workers.append(
                subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
        try:
            while any(each.poll() is None for each in workers) and time.monotonic() < deadline:
                time.sleep(_POLL)
        finally:
            for each in workers:
                if each.poll() is None:
                    each.kill()
                each.wait()
        return sum(broker.stats()["delivery_id_violations"] for broker in brokers)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
