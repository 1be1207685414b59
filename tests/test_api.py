"""`import reprise`: what it exports, how lazily, and how its functions behave where the documentation makes a promise."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import reprise

ROOT = Path(__file__).resolve().parents[1]
GUESTS = ROOT / "tests" / "guests"

EXPORTED = [
    "Bits",
    "Float",
    "FuncRef",
    "Guest",
    "GuestExit",
    "GuestTrap",
    "HostTrap",
    "Mark",
    "NewerFormatError",
    "Outcome",
    "Ran",
    "Recorded",
    "RecordingError",
    "RefusedError",
    "RepriseError",
    "Stopped",
    "TimeMachine",
    "Trace",
    "TraceError",
    "UsageError",
    "Verdict",
    "Verification",
    "__version__",
    "breakpoint_at",
    "host",
    "main",
    "provide",
    "record",
    "recording",
    "replay",
    "run",
    "verify",
    "watchpoint_at",
]


def test_the_exported_names() -> None:
    """A name is added or taken away on purpose, here as well as there."""
    assert reprise.__all__ == EXPORTED
    assert dir(reprise) == sorted(EXPORTED)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(reprise, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rewind'"):
        reprise.rewind  # noqa: B018


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert reprise.__version__ == project["version"]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import reprise", ["recorder", "replayer", "traces", "inspector", "wasmtime", "pyarrow", "duckdb", "argparse"]),
        ("import reprise; reprise.host", ["pyarrow", "duckdb", "replayer"]),
        ("import reprise; reprise.replay", ["recorder.session", "recorder.recording", "recorder.python_host", "duckdb"]),
        ("import reprise; reprise.main(['--version'])", ["recorder", "replayer", "wasmtime", "pyarrow"]),
        ("import reprise; reprise.main(['--help'])", ["wasmtime", "pyarrow", "duckdb"]),
    ],
)
def test_what_is_not_used_is_not_loaded(statement: str, absent: list[str]) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; import json; print(json.dumps(sorted(sys.modules)))"

    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert set(json.loads(done.stdout.splitlines()[-1])) & set(absent) == set()


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Env:
    @reprise.host("env", "split", "i64 -> i32 f64 i64")
    def split(self, guest: reprise.Guest, x: int) -> tuple[int, float, int]:
        return x // 2, x / 2, x

    @reprise.host("env", "double", "i32 -> i32")
    def double(self, guest: reprise.Guest, x: int) -> int:
        if x == 13:
            raise ValueError("unlucky")
        return 2 * x


def test_a_native_run_loads_no_recorder() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import reprise\n"
        f"assert reprise.run({str(GUESTS / 'reactor.wasm')!r}, invoke=[('add', 1, 2)]).results == [3]\n"
        "loaded = {'recorder.session', 'recorder.recording', 'recorder.archive', 'traces.journal', 'traces.tables', 'pyarrow'}\n"
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("guest", "invoke"),
    [
        ("reactor", [("add", 1, 2), ("count",), "count"]),
        ("multi_value", [("swap", 1, 2), ("run", 7)]),
        ("no_memory", [("run", 20)]),
        ("start_pure", [("run", 1)]),
    ],
)
def test_recorded_and_native_runs_give_the_same(guest: str, invoke: list[Any]) -> None:
    path = GUESTS / f"{guest}.wasm"

    recorded = reprise.record(path, out="x.trace", hosts=[Env], invoke=invoke)
    native = reprise.run(path, hosts=[Env], invoke=invoke)

    assert recorded.results == native.results
    assert recorded.outcome.kind == native.outcome.kind == "returned"
    assert [c.raw for c in recorded.calls] == [c.raw for c in native.calls]
    assert reprise.replay("x.trace").kind == "identical"


def test_raw_bits_survive_a_native_run_too() -> None:
    """A signalling NaN through a Python host, and a v128, which the engine's callbacks cannot carry."""

    class Identity:
        @reprise.host("env", "id_f32", "f32 -> f32")
        def f32(self, guest: reprise.Guest, x: reprise.Float) -> reprise.Float:
            return x

        @reprise.host("env", "id_f64", "f64 -> f64")
        def f64(self, guest: reprise.Guest, x: reprise.Float) -> reprise.Float:
            return x

        @reprise.host("env", "id_v128", "v128 -> v128")
        def v128(self, guest: reprise.Guest, x: int) -> int:
            return x

    for name, same in (("float_bits", 0), ("v128_bits", 1)):
        native = reprise.run(GUESTS / f"{name}.wasm", hosts=[Identity()], invoke=["run"])
        recorded = reprise.record(GUESTS / f"{name}.wasm", out=f"{name}.trace", hosts=[Identity()], invoke=["run"])

        assert native.results == recorded.results == [same]


def test_bytes_and_text_as_module() -> None:
    text = b'(module (func (export "seven") (result i32) i32.const 7))'

    assert reprise.record(text, out="x.trace", invoke=["seven"]).results == [7]
    assert reprise.run((GUESTS / "reactor.wasm").read_bytes(), invoke=["count"]).results == [1]


def test_bytes_as_standard_input(capfd: pytest.CaptureFixture[str]) -> None:
    reprise.record(GUESTS / "read_stdin.wasm", out="x.trace", stdin=b"one line\n")
    reprise.run(GUESTS / "read_stdin.wasm", stdin=b"one line\n")

    recorded, native = capfd.readouterr().out.splitlines()
    assert recorded == native
    assert reprise.replay("x.trace").kind == "identical"


def test_a_host_that_raises_is_an_outcome() -> None:
    ended = reprise.record(GUESTS / "start_pure.wasm", out="x.trace", hosts=[Env], invoke=[("run", 6)])
    native = reprise.run(GUESTS / "start_pure.wasm", hosts=[Env], invoke=[("run", 6)])

    assert ended.outcome.kind == native.outcome.kind == "trap"
    assert "ValueError: unlucky" in ended.outcome.message


def test_wrong_arguments_leave_nothing_behind(tmp_path: Path) -> None:
    for invoke in ([("add", 1)], [("add", 1, "x")], [("add", 1, 2.5)], [("add", 1, 1 << 40)]):
        with pytest.raises(reprise.UsageError):
            reprise.record(GUESTS / "reactor.wasm", out="x.trace", invoke=invoke)

    assert list(tmp_path.iterdir()) == []


def test_an_exception_of_the_embedder_passes_through_a_closed_recording() -> None:
    session = reprise.recording(GUESTS / "reactor.wasm", out="x.trace")
    with pytest.raises(ZeroDivisionError), session as guest:
        assert guest.call("add", 1, 2) == 3
        _ = 1 / 0

    assert session.path == Path("x.trace")
    assert session.outcome is not None
    assert reprise.verify("x.trace").problems == []


def test_a_trap_reaches_the_embedder_who_may_go_on() -> None:
    session = reprise.recording(GUESTS / "start_pure.wasm", out="x.trace", hosts=[Env])
    with session as guest:
        with pytest.raises(ValueError, match="unlucky"):
            guest.call("run", 6)
        assert guest.call("run", 1) == 16

    assert session.outcome is not None and session.outcome.kind == "returned"
    assert reprise.replay("x.trace").kind == "identical"


def test_a_budget_that_is_used_up_reaches_the_embedder() -> None:
    session = reprise.recording(GUESTS / "busy_loop.wasm", out="x.trace", fuel=1000)
    with pytest.raises(reprise.Stopped), session as guest:
        guest.call("_start")

    assert session.outcome is not None and session.outcome.kind == "fuel"
    assert reprise.replay("x.trace").kind == "identical"


def test_a_guest_kept_beyond_its_recording_raises() -> None:
    with reprise.recording(GUESTS / "reactor.wasm", out="x.trace") as guest:
        guest.call("add", 1, 2)

    with pytest.raises(RuntimeError):
        guest.call("add", 1, 2)


def test_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(reprise.RefusedError):
        reprise.recording(GUESTS / "no_memory.wasm", out="x.trace").__enter__()
    with pytest.raises(reprise.RefusedError):
        reprise.run(GUESTS / "no_memory.wasm", invoke=[("run", 1)])

    assert list(tmp_path.iterdir()) == []


def test_a_native_guest_has_the_methods_of_a_recorded_one() -> None:
    """One host must serve both: `reprise run --host` and `reprise record --host`."""
    from recorder.native import NativeGuest

    def surface(kind: type) -> dict[str, list[str]]:
        methods = {name: item for name, item in vars(kind).items() if not name.startswith("_") and callable(item)}
        return {name: [p for p in inspect.signature(item).parameters if p != "self"] for name, item in methods.items()}

    assert surface(NativeGuest) == surface(reprise.Guest)
