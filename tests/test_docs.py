"""The documentation is held against the code: every command, option, exit code and example in it, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import reprise
from replayer.verdict import EXIT_CODES
from traces import _errors
from traces.cli import Command, Parser

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()
README = (ROOT / "README.md").read_text()


def all_commands() -> list[Command]:
    return [reprise._room_commands(room)[name] for name, room in reprise._COMMANDS.items()]


def options_of(command: Command) -> set[str]:
    parser = Parser(command.name, command.summary)
    command.declare(parser)
    return {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}


def exit_codes() -> list[tuple[str, str, str]]:
    section = COMMANDS.partition("## Exit codes")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [(code.strip(), of.strip(), meaning.strip()) for code, of, meaning in rows[1:]]


def test_the_front_door_mounts_what_the_rooms_declare() -> None:
    for room in set(reprise._COMMANDS.values()):
        declared = set(reprise._room_commands(room))
        assert declared == {name for name, home in reprise._COMMANDS.items() if home == room}


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: command.name)
def test_every_command_and_option_is_documented(command: Command) -> None:
    assert f"`reprise {command.name}" in COMMANDS
    for option in options_of(command):
        assert re.search(rf"[`\s]{re.escape(option)}[`\s]", COMMANDS), f"{command.name} {option}"


def test_every_documented_command_and_option_exists() -> None:
    names = set(re.findall(r"`reprise ([a-z-]+)", COMMANDS + README))
    options = set(re.findall(r"`(--?[a-z][a-z-]*)", COMMANDS))

    assert names <= set(reprise._COMMANDS)
    assert options <= {option for command in all_commands() for option in options_of(command)} | {"--help"}


def test_commands_stand_in_their_groups() -> None:
    for command in all_commands():
        section = COMMANDS.partition(f"## {command.group}\n")[2].partition("\n## ")[0]
        assert f"`reprise {command.name}" in section


def test_the_table_of_exit_codes_is_the_codes() -> None:
    from recorder.outcome import STOPS, outcome_of

    documented = {(code, of) for code, of, _ in exit_codes()}

    assert {(str(code), "`replay`, `verify`") for kind, code in EXIT_CODES.items() if kind != "unusable"} <= documented
    assert (str(EXIT_CODES["unusable"]), "all that read a trace") in documented
    assert str(_errors.TraceError.exit_code) == str(EXIT_CODES["unusable"])
    run = "`record`, `run`"
    assert {(str(code), "all" if code == 130 else run) for _, code, _ in STOPS.values()} <= documented
    trap = reprise.GuestTrap(0, "")
    assert outcome_of(trap).exit_code == 134
    assert outcome_of(reprise.GuestExit(200)).exit_code == 125
    assert (str(_errors.UsageError.exit_code), "all") in documented
    assert (str(_errors.RefusedError.exit_code), run) in documented
    assert (str(_errors.RecordingError.exit_code), "`record`") in documented
    assert {(str(c), "all") for c in (reprise.USAGE, reprise.SOFTWARE, reprise.INTERRUPTED, reprise.BROKEN_PIPE)} <= documented


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_library_run(tmp_path: Path) -> None:
    for guest in (ROOT / "tests" / "guests").glob("*.wasm"):
        shutil.copy(guest, tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "examples.py").write_text("\n".join(blocks(LIBRARY)))

    done = subprocess.run(
        [sys.executable, "-W", "error", "examples.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "identical: " in done.stdout


def test_the_library_page_names_everything_that_is_exported() -> None:
    shown = {"__version__", "main", "Recorded", "Ran", "Outcome", "Verdict", "Verification", "Float", "FuncRef"}

    for name in set(reprise.__all__) - shown:
        assert re.search(rf"reprise\.{name}\b|`{name}`", LIBRARY), name


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_two_commands_of_a_fresh_clone() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"demo", "test"} <= targets
    assert "make demo" in README
    assert "make test" in README


def test_the_tour_still_says_what_the_readme_shows(tmp_path: Path) -> None:
    """Values of clocks and random bytes aside, every line of the README's console blocks is what the commands print."""
    pytest.importorskip("duckdb")
    for directory in ("tests", "recorder"):
        (tmp_path / directory).symlink_to(ROOT / directory)
    (tmp_path / "work").mkdir()
    for text in re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            words = command.replace("reprise", f"{sys.executable} -m reprise", 1)
            done = subprocess.run(
                words,
                shell=True,
                cwd=tmp_path,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            printed = {_without_values(line) for line in (done.stdout + done.stderr).splitlines()}
            for line in shown.splitlines():
                assert line == "…" or _without_values(line) in printed, f"$ {command}\n{line}\n{done.stdout}{done.stderr}"


def _without_values(line: str) -> str:
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", line)
    line = re.sub(r"\b[0-9a-f]{32}\b", "RANDOM", line)
    return re.sub(r"\d+\.\d{9}", "SECONDS", line)


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    program = "\n".join(blocks(README))

    subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        check=True,
        timeout=60,
    )
