"""Building every guest program of this repository from its source, byte for byte the same wherever it is done.

The `.wasm` files are committed, so that nothing but this script and one test needs a compiler; this module alone knows
how each of them is made (`GUESTS`). C and Zig are compiled by the `ziglang` wheel, text by `wasmtime.wat2wasm`.

    python tests/guests/build.py [--check] [NAMES]

Without `--check` the named outputs (all, if none is named) are written next to their sources; with it they are built
into a temporary directory and compared with what is committed. A name is an output's file name, with or without
`.wasm`. Exit code 1 means that something differs or does not build.

Why the bytes do not depend on the machine: the environment handed to the compiler is made here, its caches are private,
the compiler runs where the sources lie and sees relative names, debug information has its paths mapped to `.` and
`zig`, and an output that still contains a path of this machine is refused.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout. Sources and outputs below are relative to it."""

CACHE = Path(__file__).resolve().parent / ".cache"
"""The compiler's private caches: only there to save time, ignored by git, safe to delete."""

ZIGLANG = "0.17.0"
"""The version of the `ziglang` wheel that made the committed bytes. Another one makes other bytes."""

WASMTIME = "50.0.1"
"""The version of `wasmtime` whose `wat2wasm` made the committed bytes."""

COMMAND = ("-target", "wasm32-wasi", "-O2", "-s", "-Wl,-z,stack-size=1048576")
"""A WASI command: optimised, without names or debug information, with 1 MiB of stack (16 MiB is Zig's default)."""

REACTOR = (*COMMAND, "-mexec-model=reactor")
"""A WASI reactor: `_initialize` and exports, no `_start`."""

FREESTANDING = ("-target", "wasm32-freestanding", "-O2", "-s", "-nostdlib", "-Wl,--no-entry")
"""No WASI, no libc, no entry point."""

SIMD = (*COMMAND, "-mcpu=lime1+simd128")
"""A command that may use the 128-bit vector instructions."""

DEMO = ("-target", "wasm32-wasi", "-O1", "-Xclang", "-O1", "-fno-inline", "-g")
"""Flags of the object file with debug information; linked as in `_compile_with_dwarf`. Zig makes -O2 of -O1, hence
-Xclang; without inlining, a person finds the functions of the source on the stack."""

DEBUG = ("-target", "wasm32-freestanding", "-nostdlib", "-Wl,--no-entry", "-Wl,--export=__stack_pointer", "-fno-sanitize=all")
"""No libc, and the debug information stays. The stack pointer is exported: tests find variables with it."""

ZIG_EXE = ("-target", "wasm32-wasi", "-O", "ReleaseFast", "-fstrip", "--stack", "1048576")
"""A command written in Zig."""


class BuildError(Exception):
    """A guest that does not build, or builds into something that names this machine."""


@dataclass(frozen=True)
class Guest:
    """One output and everything that decides its bytes."""

    output: str
    """The `.wasm`, relative to the checkout."""
    source: str
    """The source it is built from, in the same directory; its ending picks the compiler."""
    flags: tuple[str, ...] = ()
    """For the compiler; empty for text."""
    dwarf: bool = False
    """Keeps names and the source's own debug information (none of libc's)."""

    @property
    def name(self) -> str:
        return Path(self.output).stem


def _in(directory: str, flags: tuple[str, ...], *sources: str) -> tuple[Guest, ...]:
    return tuple(Guest(f"{directory}/{Path(s).stem}.wasm", f"{directory}/{s}", flags) for s in sources)


GUESTS: tuple[Guest, ...] = (
    *_in(
        "tests/guests",
        COMMAND,
        "clock_random_file.c",
        "pipe_writer.c",
        "sleep_hour.c",
        "read_stdin.c",
        "big_read.c",
        "big_write.c",
        "mixed_loop.c",
    ),
    *_in("tests/guests", REACTOR, "reactor.c"),
    *_in("tests/guests", FREESTANDING, "allocator_run.c"),
    *_in("tests/guests", ZIG_EXE, "word_count.zig"),
    *_in(
        "tests/guests",
        (),
        "import_loop.wat",
        "import_loop_start.wat",
        "busy_loop.wat",
        "deep_recursion.wat",
        "deep_recursion_clock.wat",
        "deep_recursion_import.wat",
        "no_memory.wat",
        "two_memories.wat",
        "memory64.wat",
        "start_import.wat",
        "start_pure.wat",
        "imported_state.wat",
        "same_name_two_types.wat",
        "multi_value.wat",
        "float_bits.wat",
        "v128_bits.wat",
        "v128_host.wat",
        "tables.wat",
        "threads.wat",
    ),
    *_in(
        "benchmarks/programs",
        COMMAND,
        "compress.c",
        "parse.c",
        "sort.c",
        "hash.c",
        "interp.c",
        "write_heavy.c",
    ),
    *_in("benchmarks/programs", SIMD, "matrix.c"),
    *_in("benchmarks/programs", ZIG_EXE, "raytrace.zig"),
    Guest("tests/guests/debug_types_O0_4.wasm", "tests/guests/debug_types.c", (*DEBUG, "-O0", "-gdwarf-4")),
    Guest("tests/guests/debug_types_O0_5.wasm", "tests/guests/debug_types.c", (*DEBUG, "-O0", "-gdwarf-5")),
    Guest("tests/guests/debug_types_O2_4.wasm", "tests/guests/debug_types.c", (*DEBUG, "-O2", "-gdwarf-4")),
    Guest("tests/guests/debug_types_O2_5.wasm", "tests/guests/debug_types.c", (*DEBUG, "-O2", "-gdwarf-5", "-gembed-source")),
    Guest("tests/guests/debug_classes.wasm", "tests/guests/debug_classes.cpp", (*DEBUG, "-O0", "-gdwarf-5")),
    Guest("tests/guests/stepping_O0.wasm", "tests/guests/stepping.c", (*DEBUG, "-O0", "-gdwarf-4", "-mbulk-memory")),
    Guest("tests/guests/stepping_O2.wasm", "tests/guests/stepping.c", (*DEBUG, "-O2", "-gdwarf-4", "-mbulk-memory")),
    Guest("tests/guests/ledger_O0.wasm", "tests/guests/ledger.c", (*DEBUG, "-O0", "-gdwarf-4")),
    Guest(
        "tests/guests/ledger_bare.wasm",
        "tests/guests/ledger.c",
        ("-target", "wasm32-freestanding", "-O1", "-s", "-nostdlib", "-Wl,--no-entry", "-fno-sanitize=all"),
    ),
    Guest("recorder/demo/agent.wasm", "recorder/demo/agent.c", DEMO, dwarf=True),
)
"""Every guest of the repository."""


def zig_directory() -> Path:
    """Where the `ziglang` wheel lies. Raises ImportError without it."""
    import ziglang

    return Path(ziglang.__file__).parent


def _environment() -> dict[str, str]:
    """What the compiler may see of this machine: nothing that could reach its output."""
    return {
        "PATH": os.defpath,
        "HOME": str(CACHE),
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "0",
        "ZIG_LOCAL_CACHE_DIR": str(CACHE / "local"),
        "ZIG_GLOBAL_CACHE_DIR": str(CACHE / "global"),
    }


def _zig(arguments: list[str], directory: Path) -> str:
    """Runs one `zig` command in `directory` and returns what it said on stderr."""
    done = subprocess.run(
        [str(zig_directory() / "zig"), *arguments],
        cwd=directory,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"zig {shlex.join(arguments)}\n{done.stderr.strip()}")
    return done.stderr


def _mapped(directory: Path) -> list[str]:
    """Flags that keep the checkout and the compiler's directory out of debug information and `__FILE__`."""
    places = {str(directory): ".", str(zig_directory()): "zig", str(zig_directory().resolve()): "zig"}
    return ["-fdebug-compilation-dir=.", *(f"-ffile-prefix-map={place}={name}" for place, name in places.items())]


def _compile_with_dwarf(guest: Guest, source: Path, scratch: Path, out: Path) -> None:
    """Compiles with debug information and links with a libc that has none.

    `zig cc -g` would build libc with debug information too, a megabyte of it, full of this machine's paths. So the
    link is run twice: once stripped, to learn the linker's command line (and to have that libc built), and once more
    by hand without the stripping.
    """
    directory, object_file = source.parent, scratch / "object.o"
    target = list(guest.flags[:2])
    _zig(["cc", *guest.flags, *_mapped(directory), "-c", source.name, "-o", str(object_file)], directory)
    stripped = scratch / "stripped.wasm"
    said = _zig(
        ["cc", *target, "-O2", "-s", "-v", "-Wl,-z,stack-size=1048576", str(object_file), "-o", str(stripped)],
        directory,
    )
    # zig prints the line without quotes, so paths that may hold spaces are replaced before it is split.
    shown = said.replace(str(stripped), "@out").replace(str(scratch), "@scratch").replace(str(CACHE), "@cache")
    links = [line.split() for line in shown.splitlines() if line.startswith("wasm-ld ")]
    if len(links) != 1 or not {"-s", "@out"} <= set(links[0]):
        raise BuildError(f"{guest.output}: the linker's command line was not understood: {links}")
    places = {"@out": str(out), "@scratch": str(scratch), "@cache": str(CACHE)}
    again = []
    for word in links[0]:
        for mark, place in places.items():
            word = word.replace(mark, place)
        if word != "-s":
            again.append(word)
    _zig(again, directory)


def build(guest: Guest, directory: Path) -> Path:
    """Builds one guest into `directory` and returns the file."""
    source = ROOT / guest.source
    out = directory / Path(guest.output).name
    if source.suffix == ".wat":
        import wasmtime

        out.write_bytes(wasmtime.wat2wasm(source.read_text(encoding="utf-8")))
    else:
        with tempfile.TemporaryDirectory(prefix="reprise-guest-") as scratch:
            if source.suffix == ".zig":
                _zig(["build-exe", source.name, *guest.flags, f"-femit-bin={out}"], source.parent)
            elif guest.dwarf:
                _compile_with_dwarf(guest, source, Path(scratch), out)
            else:
                flags = [*guest.flags, *_mapped(source.parent)]
                _zig(["cc", *flags, source.name, "-o", str(out)], source.parent)
    out.chmod(0o644)
    _refuse_paths(guest, out)
    return out


def _refuse_paths(guest: Guest, out: Path) -> None:
    data = out.read_bytes()
    for place in {ROOT, zig_directory(), zig_directory().resolve(), CACHE, Path(tempfile.gettempdir())}:
        if len(place.parts) > 2 and os.fsencode(place) in data:
            raise BuildError(f"{guest.output} contains the path {place} of this machine")


def check(guests: tuple[Guest, ...] = GUESTS) -> list[str]:
    """Rebuilds the guests and says, one line each, which of them differ from what is committed."""
    wrong = []
    with tempfile.TemporaryDirectory(prefix="reprise-guests-") as scratch:
        for guest in guests:
            committed = ROOT / guest.output
            try:
                fresh = build(guest, Path(scratch)).read_bytes()
            except BuildError as error:
                wrong.append(f"{guest.output}: does not build: {error}")
                continue
            if not committed.exists():
                wrong.append(f"{guest.output}: is not there")
            elif fresh != committed.read_bytes():
                wrong.append(f"{guest.output}: differs from a fresh build of {guest.source}")
    return wrong


def versions() -> list[str]:
    """Says which tool is not the one that made the committed bytes."""
    from importlib.metadata import version

    wanted = {"ziglang": ZIGLANG, "wasmtime": WASMTIME}
    return [
        f"{name} is {version(name)}, the committed guests were built with {expected}"
        for name, expected in wanted.items()
        if version(name) != expected
    ]


def main(argv: list[str] | None = None) -> int:
    """Builds or checks; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the guest programs, or check the committed ones.")
    parser.add_argument("--check", action="store_true", help="compare fresh builds with the committed files")
    parser.add_argument("names", nargs="*", metavar="NAMES", help="outputs to build (default: all)")
    options = parser.parse_args(argv)

    wanted = {Path(name).name.removesuffix(".wasm") for name in options.names}
    if unknown := wanted - {guest.name for guest in GUESTS}:
        parser.error(f"no such guest: {', '.join(sorted(unknown))}")
    guests = tuple(guest for guest in GUESTS if not wanted or guest.name in wanted)

    for line in versions():
        print(f"warning: {line}", file=sys.stderr)
    if options.check:
        wrong = check(guests)
        for line in wrong:
            print(line)
        if wrong:
            print("build them with: python tests/guests/build.py", file=sys.stderr)
        return 1 if wrong else 0
    for guest in guests:
        try:
            out = build(guest, (ROOT / guest.output).parent)
        except BuildError as error:
            print(f"{guest.output}: {error}", file=sys.stderr)
            return 1
        print(f"{guest.output} {out.stat().st_size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
