"""What is installed, and what importing it costs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from configparser import ConfigParser
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.cfg", "setup.py", "README.md", "LICENSE", "queue_runtime")


def python(code: str) -> str:
    """What a fresh interpreter prints that runs *code*."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """The top-level packages that *code* has loaded in a fresh interpreter."""
    return set(
        python(f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))").split()
    )


class TestImporting:
    def test_the_package_loads_no_sdk_and_nothing_for_payloads(self) -> None:
        foreign = {
            "azure",
            "boto3",
            "botocore",
            "dataclasses_json",
            "dotenv",
            "flask",
            "marshmallow",
            "pytest",
        }

        assert loaded_by("import queue_runtime, queue_runtime.github") & foreign == set()

    def test_the_memory_provider_loads_no_sdk(self) -> None:
        loaded = loaded_by("import queue_runtime; queue_runtime.connect('memory://').close()")

        assert loaded & {"boto3", "botocore", "azure"} == set()

    def test_starts_no_thread(self) -> None:
        code = (
            "import queue_runtime, threading\n"
            "client = queue_runtime.connect('memory://?queues=jobs')\n"
            "print(threading.active_count())"
        )

        assert python(code) == "1\n"

    def test_every_public_name_is_there(self) -> None:
        code = "import queue_runtime\nfor name in queue_runtime.__all__: getattr(queue_runtime, name)"

        assert python(code) == ""


pytestmark = pytest.mark.xdist_group("wheel")  # built once, of all workers


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterable[zipfile.ZipFile]:
    """The wheel, built from a copy: building leaves files behind."""
    place = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place / name)
    options = "--quiet --no-deps --no-index --use-pep517 --no-build-isolation --disable-pip-version-check"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options.split(), "--wheel-dir", place / "dist", place],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (place / "dist").glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


class TestTheWheel:
    def test_holds_the_package_and_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        assert {name.split("/")[0] for name in wheel.namelist()} == {
            "queue_runtime",
            "queue_runtime-0.1.0.dist-info",
        }

    def test_holds_every_module_and_the_mark_of_typed_packages(self, wheel: zipfile.ZipFile) -> None:
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "queue_runtime").rglob("*.py")}

        assert {name for name in wheel.namelist() if name.endswith(".py")} == modules
        assert "queue_runtime/py.typed" in wheel.namelist()

    def test_asks_for_no_sdk_unless_its_extra_is_asked_for(self, wheel: zipfile.ZipFile) -> None:
        metadata = wheel.read("queue_runtime-0.1.0.dist-info/METADATA").decode().split("\n\n")[0].splitlines()
        required = [line.split(" ", 1)[1] for line in metadata if line.startswith("Requires-Dist: ")]

        assert [line.split("<")[0].split(">")[0] for line in required if "extra ==" not in line] == [
            "dataclasses-json"
        ]
        assert any(line.startswith("boto3") and 'extra == "sqs"' in line for line in required)
        assert "Requires-Python: >=3.11" in metadata

    def test_names_its_license_and_brings_it(self, wheel: zipfile.ZipFile) -> None:
        assert any(name.endswith("LICENSE") for name in wheel.namelist())

    def test_names_its_providers(self, wheel: zipfile.ZipFile) -> None:
        found = ConfigParser()
        found.read_string(wheel.read("queue_runtime-0.1.0.dist-info/entry_points.txt").decode())

        assert set(found["queue_runtime.providers"]) == {"memory", "servicebus", "sqs"}


def test_every_entry_point_can_be_loaded() -> None:
    found = {entry.name: entry for entry in entry_points(group="queue_runtime.providers")}

    assert {"memory", "servicebus", "sqs"} <= set(found)
    assert all(callable(entry.load()) for entry in found.values())
