"""Bad input, item by item: one line that says what is wrong and the way out, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.cli.conftest import GUESTS, Cli, one_line

LOOP = GUESTS / "import_loop.wasm"
COMPONENT = b"\0asm\x0d\0\x01\0"
EMPTY_MODULE = b"\0asm\1\0\0\0"


# -- modules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x7fELF\2\1\1\0rest", "is not a Wasm module"),
        (b"", "is empty"),
        (b"hello, world", "is not a Wasm module"),
        (b"\0asm\2\0\0\0", "unknown version"),
        (COMPONENT, "is a component; components cannot be recorded yet"),
        (b"(module (func $f (unknown)))", "does not assemble"),
        (EMPTY_MODULE + b"\x01\xff", "not a module that can be run"),
    ],
)
@pytest.mark.parametrize("command", ["record", "run"])
def test_what_is_not_a_core_module_is_refused(cli: Cli, command: str, data: bytes, says: str) -> None:
    (cli.cwd / "x.wasm").write_bytes(data)

    one_line(cli(command, "x.wasm"), 126, says)

    assert not list(cli.cwd.glob("*.trace"))


def test_text_format_is_assembled(cli: Cli) -> None:
    (cli.cwd / "x.wat").write_text('(module (func (export "seven") (result i32) i32.const 7))')

    done = cli("record", "-o", "x.trace", "--invoke", "seven", "x.wat")

    assert done.returncode == 0
    assert "seven → 7" in done.stderr
    assert cli("replay", "x.trace").returncode == 0


def test_a_missing_module(cli: Cli) -> None:
    one_line(cli("record", "missing.wasm"), 126, "missing.wasm", "No such file")


def test_a_directory_as_module(cli: Cli) -> None:
    one_line(cli("record", "work"), 126, "is a directory")


def test_an_unreadable_module(cli: Cli) -> None:
    (cli.cwd / "x.wasm").write_bytes(EMPTY_MODULE)
    (cli.cwd / "x.wasm").chmod(0)

    one_line(cli.without_privileges()("record", "x.wasm"), 126, "Permission denied")


@pytest.mark.parametrize(("guest", "names"), [("threads", "threads"), ("no_memory", "env.double")])
def test_what_cannot_be_recorded_is_refused_by_name(cli: Cli, guest: str, names: str) -> None:
    one_line(cli("record", "--invoke", "run", "--arg", "1", GUESTS / f"{guest}.wasm"), 126, names)

    assert not list(cli.cwd.glob("*.trace"))


# -- places --------------------------------------------------------------------------------------------------------------


def test_an_argument_that_is_not_utf_8(cli: Cli) -> None:
    done = subprocess.run(
        [*map(os.fsencode, cli.command("record", "-o", "x.trace", GUESTS / "clock_random_file.wasm")), b"caf\xe9"],
        cwd=cli.cwd,
        env=cli.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    one_line(done, 64, "not UTF-8")
    assert not (cli.cwd / "x.trace").exists()


def test_a_pipe_as_standard_input_is_not_used_up_by_looking(cli: Cli) -> None:
    os.mkfifo(cli.cwd / "pipe")
    writer = subprocess.Popen(["sh", "-c", "printf hello > pipe"], cwd=cli.cwd)

    done = cli("record", "-o", "x.trace", "--stdin", "pipe", GUESTS / "read_stdin.wasm")

    assert writer.wait(10) == 0
    assert (done.returncode, done.stdout) == (0, "hello")


def test_standard_output_closed(cli: Cli) -> None:
    command = [*cli.command("record", "-o", "x.trace", "--invoke", "run", "--arg", "1", LOOP)]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command], cwd=cli.cwd, env=cli.environment(), capture_output=True, text=True, check=False
    )

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert cli("replay", "x.trace").returncode == 0


def test_recording_never_overwrites(cli: Cli, trace: Path) -> None:
    before = {file.name: file.read_bytes() for file in trace.iterdir()}

    one_line(cli("record", "-o", "a.trace", "--invoke", "run", "--arg", "1", LOOP), 126, "exists already", "-o")

    assert {file.name: file.read_bytes() for file in trace.iterdir()} == before


def test_a_directory_that_cannot_be_written(cli: Cli) -> None:
    # /proc refuses everybody, root included.
    one_line(cli("record", "-o", "/proc/x.trace", "--invoke", "run", "--arg", "1", LOOP), 126, "/proc/x.trace", "-o")


def test_a_read_only_directory(cli: Cli) -> None:
    (cli.cwd / "work").chmod(0o500)

    mortal = cli.without_privileges()
    one_line(mortal("record", "-o", "work/x.trace", "--invoke", "run", "--arg", "1", LOOP), 126, "Permission denied", "-o")


def test_a_directory_to_grant_that_is_not_there(cli: Cli) -> None:
    one_line(cli("record", "--dir", "nowhere::/x", GUESTS / "clock_random_file.wasm"), 126, "nowhere", "not a directory")

    assert not list(cli.cwd.glob("*.trace"))


# -- traces --------------------------------------------------------------------------------------------------------------

READERS = ("replay", "verify", "show", "events")


def edit_manifest(trace: Path, **changes: object) -> None:
    file = trace / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("command", READERS)
def test_a_trace_of_a_newer_format(cli: Cli, trace: Path, command: str) -> None:
    edit_manifest(trace, format=999)

    done = cli(command, "a.trace")

    assert done.returncode == 5
    assert "trace format 999 is newer than this program's" in done.stdout + done.stderr
    assert "upgrade reprise-wasm" in done.stdout + done.stderr


def test_a_query_of_a_newer_format(cli: Cli, trace: Path) -> None:
    edit_manifest(trace, format=999)

    one_line(cli("query", "a.trace", "select 1"), 5, "newer")


@pytest.mark.parametrize("command", READERS)
def test_what_is_not_a_trace(cli: Cli, command: str) -> None:
    for path, says in (("work", "not a trace"), ("hosts.py", "not a trace directory"), ("nothing", "no such trace")):
        done = cli(command, path)

        assert done.returncode == 5
        assert says in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["module.wasm", "events.parquet", "spans.parquet", "states.parquet"])
def test_a_bit_flipped_in_any_file(cli: Cli, trace: Path, name: str) -> None:
    """At every place of the file that the replay could come by: verify never says ok, replay never says identical."""
    whole = (trace / name).read_bytes()
    for at in (0, 5, len(whole) // 3, len(whole) // 2, len(whole) - 10):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        (trace / name).write_bytes(damaged)

        verified, replayed = cli("verify", "a.trace"), cli("replay", "a.trace")

        assert verified.returncode in (3, 5)
        assert replayed.returncode in (3, 5)
        assert "integrity  FAILED" in verified.stdout
        assert name in verified.stdout
        assert "identical" not in verified.stdout + replayed.stdout
        assert verified.stderr == replayed.stderr == ""


@pytest.mark.parametrize("name", ["module.wasm", "events.parquet", "spans.parquet", "states.parquet"])
def test_a_missing_file(cli: Cli, trace: Path, name: str) -> None:
    (trace / name).unlink()

    done = cli("verify", "a.trace")

    assert done.returncode == 5
    assert f"{name}: is missing" in done.stdout
    assert cli("replay", "a.trace").returncode == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"imports": []},
        {"imports": [{"module": "x"}]},
        {"exports": 5},
        {"totals": {"records": 3, "windows": 1, "bytes": 0}},
        {"outcome": {"kind": "exit", "code": 0, "complete": True}},
        {"outcome": {"kind": "fuel", "complete": True}},
        {"files": {}},
        {"unheard": "of"},
    ],
)
def test_an_edited_manifest(cli: Cli, trace: Path, changes: dict[str, object]) -> None:
    edit_manifest(trace, **changes)

    done = cli("verify", "a.trace")

    assert done.returncode == 5, done.stdout
    assert "integrity  FAILED" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": true}', "\x00", "{" * 5000])
def test_a_manifest_that_is_none(cli: Cli, trace: Path, text: str) -> None:
    (trace / "manifest.json").write_text(text)

    one_line(cli("show", "a.trace"), 5, "manifest.json")


def test_nonsense_in_a_manifest_is_told_in_one_line(cli: Cli, trace: Path) -> None:
    edit_manifest(trace, invocation={"argv": 5, "calls": [7]})

    one_line(cli("show", "a.trace"), 5, "manifest")


def test_a_module_whose_bytes_do_not_match(cli: Cli, trace: Path) -> None:
    shutil.copy(GUESTS / "reactor.wasm", trace / "module.wasm")

    done = cli("replay", "a.trace")

    assert done.returncode == 5
    assert "is not the recorded module" in done.stdout
    assert "restore it from a copy" in done.stdout


# -- queries -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('/etc/passwd')",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "copy (select 1) to 'out.csv'",
        "copy events to 'out.parquet'",
        "attach 'x.db'",
        "install httpfs",
        "set enable_external_access = true",
        "create table t as select 1",
        "select 1; select 2",
        "selec 1",
        "select nothing from events",
        "",
    ],
)
def test_sql_that_reads_or_writes_files_or_is_wrong(cli: Cli, trace: Path, sql: str) -> None:
    pytest.importorskip("duckdb")
    before = sorted(cli.cwd.iterdir())

    one_line(cli("query", "a.trace", sql), 64)

    assert sorted(cli.cwd.iterdir()) == before


def test_a_query_of_nothing(cli: Cli) -> None:
    one_line(cli("query", "nothing", "select 1"), 64, "no such trace or store")


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("duckdb", ("query", "a.trace", "select 1"), "query"),
        ("opentelemetry", ("export", "--otlp", "a.trace"), "otel"),
    ],
)
def test_a_missing_extra_is_named(cli: Cli, trace: Path, missing: str, words: tuple[str, ...], extra: str) -> None:
    # GIVEN an interpreter in which that distribution cannot be found
    (cli.cwd / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        f"    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    paths = f"{cli.cwd}{os.pathsep}{cli.environment()['PYTHONPATH']}"

    one_line(cli(*words, env={"PYTHONPATH": paths}), 64, f"reprise-wasm[{extra}]")


# -- packs ---------------------------------------------------------------------------------------------------------------


def _tar(path: Path, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            tar.addfile(member, BytesIO(bytes(member.size)))


def _member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, size, link, 0o600
    return info


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (_member("../evil"), "leads elsewhere"),
        (_member("/tmp/evil"), "leads elsewhere"),
        (_member("manifest.json", tarfile.SYMTYPE, link="/etc/passwd"), "symbolic link"),
        (_member("manifest.json", tarfile.LNKTYPE, link="module.wasm"), "hard link"),
        (_member("manifest.json", tarfile.DIRTYPE), "a directory"),
        (_member("extra.txt"), "not a part of a trace"),
    ],
)
def test_a_pack_that_leads_elsewhere(cli: Cli, member: tarfile.TarInfo, says: str) -> None:
    _tar(cli.cwd / "evil.tar", member)
    before = sorted(cli.cwd.iterdir())

    one_line(cli("unpack", "evil.tar"), 5, says, "do not trust")

    assert sorted(cli.cwd.iterdir()) == before


def test_a_pack_of_absurd_size(cli: Cli) -> None:
    header = _member("manifest.json", size=1 << 32).tobuf(tarfile.GNU_FORMAT)
    (cli.cwd / "evil.tar").write_bytes(header + b"tiny")

    one_line(cli("unpack", "evil.tar"), 5, "more than the file holds")


def test_what_is_not_a_pack(cli: Cli) -> None:
    one_line(cli("unpack", "hosts.py"), 5, "not a packed trace")
    one_line(cli("unpack", "nothing.tar"), 64, "no such file")


def test_packs_never_overwrite(cli: Cli, trace: Path) -> None:
    assert cli("pack", "a.trace").returncode == 0

    one_line(cli("pack", "a.trace"), 64, "exists already")
    one_line(cli("unpack", "a.trace.tar"), 64, "exists already")


# -- hosts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("hosts", 64, "PKG.MOD:NAME"),
        ("nowhere:Env", 126, "there is no module 'nowhere'"),
        ("hosts:Absent", 126, "has no 'Absent'"),
        ("broken:Env", 126, "SyntaxError"),
        ("raises:Env", 126, "ZeroDivisionError"),
        ("exits:Env", 126, "SystemExit"),
        ("needs:Env", 126, "ModuleNotFoundError"),
        ("hosts:NeedsArguments", 126, "TypeError"),
        ("hosts:Fails", 126, "no database"),
        ("hosts:Empty", 126, "declares no host functions"),
        ("hosts:WrongArity", 126, "wrong signature"),
        ("hosts:WrongType", 126, "correct"),
    ],
)
@pytest.mark.parametrize("command", ["record", "run"])
def test_a_host_that_cannot_serve(cli: Cli, command: str, name: str, code: int, says: str) -> None:
    (cli.cwd / "broken.py").write_text("class Env(:\n")
    (cli.cwd / "raises.py").write_text("1 / 0\n")
    (cli.cwd / "exits.py").write_text("raise SystemExit(3)\n")
    (cli.cwd / "needs.py").write_text("import a_module_that_is_not_there\n")

    one_line(cli(command, "--host", name, "--invoke", "run", "--arg", "1", GUESTS / "no_memory.wasm"), code, says)

    assert not list(cli.cwd.glob("*.trace"))


def test_a_host_that_raises_is_an_outcome(cli: Cli) -> None:
    words = ("-o", "x.trace", "--host", "hosts:Env", "--invoke", "run", "--arg", "6", GUESTS / "start_pure.wasm")

    line = one_line(cli("record", *words), 134, "ValueError: unlucky", "x.trace")

    assert "\x1b" not in line
    assert cli("replay", "x.trace").returncode == 0


# -- arguments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name the module"),
        (["--fuel", "much", "x"], "--fuel"),
        (["--fuel=-1", "x"], "fuel"),
        (["--timeout", "0", "x"], "timeout"),
        (["--max-memory", "lots", "x"], "size"),
        (["--note", "novalue", "x"], "K=V"),
        (["--arg", "1", "x"], "--invoke"),
        (["--unheard", "x"], "--unheard"),
        (["--env", "NOT_SET_ANYWHERE", "x"], "NOT_SET_ANYWHERE"),
        (["--env", "=v", "x"], "name"),
        (["--dir", "work::/work::rx", "x"], "HOST::GUEST"),
        (["--stdin"], "--stdin"),
    ],
)
def test_wrong_usage(cli: Cli, words: list[str], says: str) -> None:
    words = [str(LOOP) if word == "x" else word for word in words]

    one_line(cli("record", *words), 64, says)

    assert not list(cli.cwd.glob("*.trace"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--invoke", "walk"), 126, "no such function"),
        (("--invoke", "run"), 64, "takes 1 arguments"),
        (("--invoke", "run", "--arg", "1", "--arg", "2"), 64, "takes 1 arguments"),
        (("--invoke", "run", "--arg", "one"), 64, "not a value of type i32"),
        (("--invoke", "run", "--arg", "4294967296"), 64, "not a value of type i32"),
        (("--invoke", "run", "--arg", "@nowhere"), 64, ""),
        ((), 126, "no _start"),
        (("--stdin", "nowhere", "--invoke", "run", "--arg", "1"), 126, "nowhere"),
    ],
)
@pytest.mark.parametrize("command", ["record", "run"])
def test_calls_that_cannot_be_made_leave_nothing_behind(
    cli: Cli, command: str, words: tuple[str, ...], code: int, says: str
) -> None:
    one_line(cli(command, *words, LOOP), code, says)

    assert not list(cli.cwd.glob("*.trace"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("recrod", "x"), "no command 'recrod'"),
        (("--verbose",), "no option '--verbose'"),
        (("replay",), "TRACE"),
        (("replay", "a.trace", "b.trace"), "b.trace"),
        (("events", "a.trace", "x"), "event number"),
        (("events", "a.trace", "--kind", "x"), "choose one of call"),
        (("events", "a.trace", "--status", "x"), "choose one of ok"),
        (("events", "a.trace", "3", "--around", "3"), "--around"),
        (("verify", "a.trace", "--key", "x"), "--key"),
        (("export", "a.trace"), "--otlp"),
        (("export", "--otlp", "a.trace", "--endpoint", "localhost"), ""),
    ],
)
def test_wrong_usage_of_the_others(cli: Cli, trace: Path, words: tuple[str, ...], says: str) -> None:
    one_line(cli(*words), 64, says)


# -- keys ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["API_KEY=sk-abcdefghijklmnop", "TOKEN=x", "OTHER=ghp_0123456789abcdefABCDEF"])
def test_a_value_that_looks_like_a_key_is_a_warning(cli: Cli, variable: str, guest: Callable[[str], Path]) -> None:
    done = cli("record", "-o", "x.trace", "--env", variable, "--invoke", "add", "--arg", "1", "--arg", "2", guest("reactor"))

    assert done.returncode == 0
    warning, *_ = done.stderr.splitlines()
    assert "warning" in warning
    assert variable.partition("=")[0] in warning
    assert variable.partition("=")[2] not in warning or variable == "TOKEN=x"


def test_an_ordinary_value_is_none(cli: Cli, guest: Callable[[str], Path]) -> None:
    done = cli("record", "--env", "LANG=C", "--invoke", "add", "--arg", "1", "--arg", "2", guest("reactor"))

    assert "warning" not in done.stderr


# -- a dead recorder -----------------------------------------------------------------------------------------------------


def test_there_must_be_something_to_recover(cli: Cli, trace: Path) -> None:
    one_line(cli("recover", "a.trace"), 64, "nothing to recover")
    one_line(cli("recover", "work"), 5, "not an unfinished trace")
    one_line(cli("recover", "nothing"), 5, "no such trace")


def test_an_unfinished_trace_is_read_without_being_changed(cli: Cli, guest: Callable[[str], Path]) -> None:
    recording = cli.start("record", "-o", "x.trace", guest("sleep_hour"))
    assert recording.stdout is not None
    recording.stdout.readline()
    one_line(cli("recover", "x.trace"), 64, "still being recorded")
    recording.kill()
    recording.communicate()
    before = sorted(path.relative_to(cli.cwd) for path in (cli.cwd / "x.trace").rglob("*"))

    replayed = cli("replay", "x.trace")

    assert replayed.returncode == 4
    assert replayed.stdout.startswith("incomplete: the recorder was killed; identical up to event ")
    assert "unfinished" in cli("show", "x.trace").stdout
    assert sorted(path.relative_to(cli.cwd) for path in (cli.cwd / "x.trace").rglob("*")) == before
    assert cli("recover", "x.trace").returncode == 0
    assert cli("verify", "x.trace").returncode == 4


def test_a_journal_of_garbage(cli: Cli, trace: Path) -> None:
    """A manifest without records is the least that can be left; garbage in the window is not taken for records."""
    journal = trace / "journal"
    journal.mkdir()
    (trace / "manifest.json").rename(journal / "manifest.json")
    for name in ("events", "spans", "states"):
        (trace / f"{name}.parquet").unlink()
    (journal / "window").write_bytes(struct.pack("<Q", 1 << 32 | 65536) + os.urandom(200_000))

    done = cli("replay", "a.trace")

    assert done.returncode in (4, 5)
    assert "identical:" not in done.stdout
    assert "Traceback" not in done.stderr
