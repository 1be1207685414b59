"""Builds `columns.wasm` from `columns.c`; the committed bytes come from exactly the pinned compiler.

    python -m traces.build_columns            write columns.wasm
    python -m traces.build_columns --check    exit 1 if columns.wasm is not what columns.c builds to

The compiler is clang as the `ziglang` wheel ships it (a development dependency: users run the committed module). Nothing of
the build reaches the bytes: no paths, no dates, no debug information.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "columns.c"
MODULE = HERE / "columns.wasm"

FLAGS = (
    "-target", "wasm32-freestanding", "-mcpu=generic+bulk_memory", "-std=c11", "-O2", "-fwrapv", "-Wall", "-Wextra", "-Werror",
    "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
)  # fmt: skip


def build() -> bytes:
    """The module's bytes, freshly compiled. Raises CalledProcessError when the compiler does not like the source."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "columns.wasm"
        # Run from the source's directory: the object's name must not carry where the repository lies.
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(out), SOURCE.name]
        subprocess.run(command, cwd=HERE, check=True)
        return out.read_bytes()


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m traces.build_columns [--check]", file=sys.stderr)
        return 64
    built = build()
    if not arguments:
        MODULE.write_bytes(built)
        print(f"wrote {MODULE} ({len(built)} bytes)", file=sys.stderr)
        return 0
    if not MODULE.exists() or MODULE.read_bytes() != built:
        print(f"{MODULE} is not what {SOURCE.name} builds to; run `python -m traces.build_columns`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
