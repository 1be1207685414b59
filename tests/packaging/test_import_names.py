"""Decision 0001: the rooms have generic names, so another distribution may own one of them.

pip lets two distributions write the same file without a word, and the last one wins. These tests install
Reprise beside a distribution that owns `traces` and hold the front door to its answer: one line naming the
foreign path, and exit code 64.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment

ROOT = Path(__file__).resolve().parent.parent.parent
FOREIGN = {"traces/__init__.py": "class TimeSeries:\n    pass\n"}


def assert_refused(done: subprocess.CompletedProcess[str], path: Path) -> None:
    assert done.returncode == 64, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "traces" in line.replace(str(path), "")
    assert str(path) in line


def test_alone_it_starts(environment: Environment, wheel: Path, tmp_path: Path) -> None:
    environment.install(wheel)

    done = environment.run("-m", "reprise", "--version", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "0.1.0" in done.stdout


def test_a_distribution_installed_later_overwrites_a_room_and_is_named(
    environment: Environment,
    wheel: Path,
    foreign_wheel: Callable[[Mapping[str, str]], Path],
    tmp_path: Path,
) -> None:
    environment.install(wheel, foreign_wheel(FOREIGN))

    # GIVEN a room that is half ours: the directory is the right one, its front is not
    room = environment.site_packages / "traces"
    assert (room / "__init__.py").read_text() == FOREIGN["traces/__init__.py"]
    assert (room / "py.typed").exists()

    done = environment.run("-m", "reprise", "--version", cwd=tmp_path)

    assert_refused(done, room)


def test_the_console_script_refuses_too(
    environment: Environment,
    wheel: Path,
    foreign_wheel: Callable[[Mapping[str, str]], Path],
    tmp_path: Path,
) -> None:
    environment.install(wheel, foreign_wheel(FOREIGN))

    done = environment.run(str(environment.python.parent / "reprise"), "--version", cwd=tmp_path)

    assert_refused(done, environment.site_packages / "traces")


def test_installed_last_reprise_works_and_the_other_distribution_does_not(
    environment: Environment,
    wheel: Path,
    foreign_wheel: Callable[[Mapping[str, str]], Path],
    tmp_path: Path,
) -> None:
    environment.install(foreign_wheel(FOREIGN), wheel)

    ours = environment.run("-m", "reprise", "--version", cwd=tmp_path)
    theirs = environment.run("-c", "from traces import TimeSeries", cwd=tmp_path)

    assert (ours.returncode, ours.stderr) == (0, "")
    assert "ImportError" in theirs.stderr


def test_uninstalling_the_other_distribution_takes_the_room_along(
    environment: Environment,
    wheel: Path,
    foreign_wheel: Callable[[Mapping[str, str]], Path],
    tmp_path: Path,
) -> None:
    environment.install(foreign_wheel(FOREIGN), wheel)
    environment.uninstall("elsewhere")

    # GIVEN a room without its front, which Python would import as an empty namespace
    room = environment.site_packages / "traces"
    assert not (room / "__init__.py").exists()
    assert (room / "py.typed").exists()

    done = environment.run("-m", "reprise", "--version", cwd=tmp_path)

    assert_refused(done, room)


@pytest.mark.parametrize("shadow", ["traces/__init__.py", "traces.py"])
def test_a_file_of_the_user_that_hides_a_room_is_named(
    environment: Environment, wheel: Path, tmp_path: Path, shadow: str
) -> None:
    environment.install(wheel)
    project = tmp_path / "project"
    (project / shadow).parent.mkdir(parents=True)
    (project / shadow).write_text("")

    done = environment.run("-m", "reprise", "--version", cwd=project)

    assert_refused(done, project / Path(shadow).parts[0])


def test_a_directory_of_data_with_a_rooms_name_hides_nothing(environment: Environment, wheel: Path, tmp_path: Path) -> None:
    environment.install(wheel)
    (tmp_path / "project" / "traces").mkdir(parents=True)

    done = environment.run("-m", "reprise", "--version", cwd=tmp_path / "project")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("room", ["traces", "recorder", "replayer", "inspector"])
def test_every_room_says_whose_it_is(room: str) -> None:
    """The front door knows a room by this line; it reads the file, for importing it may be the harm."""
    lines = (ROOT / room / "__init__.py").read_text().splitlines()

    assert '__distribution__ = "reprise-wasm"' in lines
