"""What is in the wheel: the four rooms, whole, the front door, and nothing else."""

from __future__ import annotations

import email
import email.message
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("traces", "recorder", "replayer", "inspector")

# Rooms hold code and what the code reads at run time. Another kind of file is a decision: add it here.
PACKAGE_DATA = {".wasm", ".sql", ".c", ".tcss", ".txt"}


def files_of_the_rooms() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_every_file_of_the_rooms_and_the_front_door(names: set[str]) -> None:
    shipped = {name for name in names if ".dist-info/" not in name}

    assert shipped == files_of_the_rooms() | {"reprise.py"}


def test_tests_docs_benchmarks_and_examples_stay_out(names: set[str]) -> None:
    top_level = {name.split("/")[0] for name in names}

    assert top_level == {*ROOMS, "reprise.py", "reprise_wasm-0.1.0.dist-info"}


def test_package_data_is_in_it(names: set[str]) -> None:
    data = {name for name in files_of_the_rooms() if Path(name).suffix in PACKAGE_DATA}

    assert data <= names
    assert {f"{room}/py.typed" for room in ROOMS} <= names


def test_the_rooms_hold_only_code_and_known_kinds_of_data() -> None:
    strangers = {
        name for name in files_of_the_rooms() if Path(name).suffix not in PACKAGE_DATA | {".py"} and Path(name).name != "py.typed"
    }

    assert strangers == set()


def test_the_metadata_names_the_command_the_licence_and_the_extras(wheel: Path, metadata: email.message.Message) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read("reprise_wasm-0.1.0.dist-info/entry_points.txt").decode()

    assert "[console_scripts]\nreprise = reprise:main\n" in entry_points
    assert metadata["Name"] == "reprise-wasm"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Provides-Extra") == ["all", "dev", "inspect", "otel", "query", "test"]


def test_a_bare_install_needs_the_engine_and_arrow_and_nothing_more(metadata: email.message.Message) -> None:
    requirements = metadata.get_all("Requires-Dist") or []
    base = {requirement for requirement in requirements if "extra ==" not in requirement}

    assert base == {"wasmtime<51,>=50.0.1", "pyarrow<27,>=26.0.1"}
