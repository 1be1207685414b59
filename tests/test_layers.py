"""Run-time import hygiene: what a process has loaded once a room is imported.

The import-linter contracts (`make lint`) read the source; these tests run it. They walk each room's directory
and import every module in it, in a fresh process, with a finder in front that notes who asked for what. So
they also see an import hidden behind `importlib`, or brought in by a dependency, and they cover a module from
the day it is written.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("traces", "recorder", "replayer", "inspector")

# Clients that could reach a live service. `socket` and `ssl` alone say nothing: pyarrow and pytest load them.
NETWORK_CLIENTS = (
    "aiohttp",
    "ftplib",
    "grpc",
    "http.client",
    "httpx",
    "nats",
    "opentelemetry.exporter",
    "redis",
    "requests",
    "smtplib",
    "urllib.request",
    "urllib3",
    "websockets",
    "xmlrpc.client",
)

# The half of the recorder that a replay shares, and what must never be in the process beside it.
REPLAYED_RECORDER = ("recorder.wasm", "recorder.boundary")
NOT_IN_A_REPLAY = ("recorder", "inspector", "reprise", "textual", *NETWORK_CLIENTS)

PROBE = """
import importlib, json, sys

root, wanted = json.loads(sys.argv[1])
sys.path.insert(0, root)
asked_by = {}


class Witness:
    "Finds nothing; notes the first module to ask for each name."

    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while frame is not None:
            importer = frame.f_globals.get("__name__", "")
            if not importer.startswith(("importlib", "_frozen_importlib")) and importer != "__main__":
                asked_by.setdefault(name, importer)
                break
            frame = frame.f_back
        return None


before = set(sys.modules)
sys.meta_path.insert(0, Witness())
for name in wanted:
    importlib.import_module(name)
print(json.dumps({name: asked_by.get(name, "") for name in set(sys.modules) - before}))
"""


def modules_of(room: str, under: str = "") -> list[str]:
    """Every module of a room (or of one package or module in it) on disk, the room itself first."""
    names = []
    for path in (ROOT / room).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__main__":
            continue
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(name for name in names if not under or is_in(name, [under]))


def is_in(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def loaded_by(*modules: str) -> dict[str, str]:
    """Import `modules` in a fresh process.

    Returns:
        Each module loaded on the way, with the module that first asked for it ("" when the probe did).
    """
    # -I keeps the directory and environment of this process out of it; the probe puts ROOT first itself.
    probe = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, json.dumps([str(ROOT), modules])],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert probe.returncode == 0, f"importing {', '.join(modules)} failed:\n{probe.stderr}"
    loaded: dict[str, str] = json.loads(probe.stdout.splitlines()[-1])
    return loaded


def intruders(loaded: dict[str, str], forbidden: Iterable[str], allowed: Iterable[str] = ()) -> list[str]:
    """The loaded modules that are forbidden and not allowed, each with who asked for it.

    Args:
        forbidden: packages, each with everything in it.
        allowed: packages let through all the same; so is what holds them, which Python loads on the way.
    """
    return [
        f"{name} (asked for by {importer or 'the test'})"
        for name, importer in sorted(loaded.items())
        if is_in(name, forbidden) and not is_in(name, allowed) and not any(is_in(package, [name]) for package in allowed)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_walked(room: str) -> None:
    """The rules below hold for what the walk finds, so the walk must find something."""
    assert modules_of(room)[0] == room


def test_traces_load_no_other_room() -> None:
    loaded = loaded_by(*modules_of("traces"))

    assert intruders(loaded, ["recorder", "replayer", "inspector", "reprise", "textual"]) == []


def test_the_recorder_loads_nothing_that_looks() -> None:
    loaded = loaded_by(*modules_of("recorder"))

    assert intruders(loaded, ["replayer", "inspector", "reprise", "textual", "duckdb", "opentelemetry"]) == []


def test_the_recorder_itself_loads_none_of_its_modules() -> None:
    """Nothing in `recorder` can be imported without `recorder`: what its front loads, every replay loads."""
    loaded = loaded_by("recorder")

    assert [name for name in loaded if is_in(name, ["recorder"])] == ["recorder"]


def test_recorder_wasm_is_a_leaf() -> None:
    loaded = loaded_by("recorder", *modules_of("recorder", under="recorder.wasm"))

    assert intruders(loaded, [*ROOMS, "reprise"], allowed=["recorder.wasm"]) == []


def test_recorder_boundary_loads_only_what_a_replay_may() -> None:
    loaded = loaded_by("recorder", *modules_of("recorder", under="recorder.boundary"))

    assert intruders(loaded, NOT_IN_A_REPLAY, REPLAYED_RECORDER) == []


def test_the_replayer_loads_no_host_no_runtime_and_no_network_client() -> None:
    loaded = loaded_by(*modules_of("replayer"))

    assert intruders(loaded, NOT_IN_A_REPLAY, REPLAYED_RECORDER) == []


HEADLESS = [
    "focus", "session", "protocol", "capture", "snapshot", "bookmarks", "commands", "divergence", "events", "memory",
    "sql.console", "runs.run", "runs.store", "runs.listing", "runs.shelf", "runs.verifier",
]  # fmt: skip


@pytest.mark.parametrize("module", HEADLESS)
def test_the_headless_half_of_the_inspector_loads_no_textual(module: str) -> None:
    loaded = loaded_by("inspector", *modules_of("inspector", under=f"inspector.{module}"))

    assert intruders(loaded, ["textual"]) == []


def test_the_front_door_is_lazy() -> None:
    loaded = loaded_by("reprise")

    assert intruders(loaded, [*ROOMS, "wasmtime", "pyarrow", "duckdb", "textual", "opentelemetry"]) == []
