"""Finding source text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recorder.wasm.module import parse_module
from replayer.source import files
from replayer.source.debuginfo import open_source

GUESTS = Path(__file__).resolve().parents[1] / "guests"


def test_the_text_of_a_guest() -> None:
    module = parse_module((GUESTS / "debug_types_O0_4.wasm").read_bytes())
    info = open_source(module, search=[GUESTS])
    assert info is not None
    text = info.text("debug_types.c")
    assert text is not None and text[67] == 'EXPORT("run") int run(int seed) {'
    assert info.text_is_current("debug_types.c") is None  # DWARF 4 has no checksums
    assert info.text("no_such_file.c") is None


def test_embedded_text_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    info = open_source(parse_module((GUESTS / "debug_types_O2_5.wasm").read_bytes()))
    assert info is not None
    assert info.text("debug_types.c") == (GUESTS / "debug_types.c").read_text().splitlines()


def test_a_source_that_changed_is_told_apart(tmp_path: Path) -> None:
    module = parse_module((GUESTS / "debug_types_O0_5.wasm").read_bytes())
    info = open_source(module, search=[GUESTS])
    assert info is not None and info.text_is_current("debug_types.c") is True
    (tmp_path / "debug_types.c").write_text("int other;\n")
    info = open_source(module, search=[tmp_path])
    assert info is not None and info.text_is_current("debug_types.c") is False


def test_remapped_prefixes_then_the_name_then_the_longest_match(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "a.c", two / "src" / "a.c", two / "lib" / "b.c", one / "b.c"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))

    def found(name: str, remap: list[tuple[str, str]], search: list[Path]) -> str | None:
        data = files.find_source(name, remap, search)
        return data.decode() if data is not None else None

    assert found("/build/src/a.c", [], [one, two]) == str(two / "src" / "a.c")
    assert found("/build/src/a.c", [], [one]) == str(one / "a.c")
    assert found("/build/src/a.c", [("/build/src", str(one))], [two]) == str(one / "a.c")
    assert found("/build/src/a.c", [("/bui", str(one))], []) is None  # whole directories only
    assert found(str(one / "b.c"), [], [two]) == str(one / "b.c")
    assert found("/build/../../etc/b.c", [], [two / "lib"]) == str(two / "lib" / "b.c")
    assert found("/x/../../y.c", [], [one]) is None


def test_only_regular_files_of_reasonable_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.c")
    with (tmp_path / "huge.c").open("wb") as file:
        file.truncate((16 << 20) + 1)
    (tmp_path / "dir.c").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("pipe.c", "huge.c", "dir.c", "missing.c", "a\0b.c", "/dev/zero"):
        assert files.find_source(name, [], [tmp_path]) is None, name
    assert len(os.listdir("/proc/self/fd")) == before


def test_lines_of_any_kind() -> None:
    assert files.to_lines(b"a\r\nb\rc\n\xff\x0cd") == ["a", "b", "c", "\ufffd\x0cd"]
    assert files.to_lines(b"\xef\xbb\xbfa\n") == ["a"]
    assert files.to_lines(b"") == []
