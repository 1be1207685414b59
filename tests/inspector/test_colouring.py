"""Source lines in parts: what is told apart, and that nothing is lost or slow, whatever the line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.colouring import coloured, inside_comments, language


def roles(line: str, file: str = "a.c", inside: bool = False) -> dict[str, str]:
    """Role by text, of the parts that have one."""
    return {text: role for text, role in coloured(line, file, inside) if role}


def test_what_is_told_apart_in_c() -> None:
    assert roles('    if (n > 0x1f) printf("\\"%d\\"", n);  // why') == {
        "if": "keyword", "0x1f": "number", '"\\"%d\\""': "string", "// why": "comment",
    }  # fmt: skip
    assert roles("#include <stdio.h>") == {"#include": "keyword"}
    assert roles("char c = '\\''; int32_t interval;") == {"char": "keyword", "'\\''": "string"}


def test_a_lifetime_is_no_string() -> None:
    assert roles("fn f<'a>(x: &'a str) -> char { 'x' }", "lib.rs") == {
        "fn": "keyword", "str": "keyword", "char": "keyword", "'x'": "string",
    }  # fmt: skip


def test_comments_go_on_until_they_end() -> None:
    lines = ["int a; /* one", " * int two", " end */ int b;", '"/*" no comment', "/*/ begins", "ends */", "/* */ none"]

    assert inside_comments("a.c", lines) == {1, 2, 5}
    assert roles(lines[1], inside=True) == {" * int two": "comment"}
    assert roles(lines[2], inside=True) == {" end */": "comment", "int": "keyword"}


def test_other_files_are_left_as_they_are() -> None:
    assert language("README") is None
    assert coloured("if x", "notes.txt", False) == [("if x", "")]
    assert inside_comments("notes.txt", ["/*", "x"]) == frozenset()


@given(st.text(alphabet="/*\"'\\\n #aif0.(){}é\t", max_size=60), st.sampled_from(["a.c", "b.rs", "c.zig", "d"]), st.booleans())
def test_nothing_is_lost(line: str, file: str, inside: bool) -> None:
    assert "".join(text for text, _ in coloured(line, file, inside)) == line


@pytest.mark.parametrize("unit", ["/*", '"\\', "'\\", 'R"(', "a::", "(", " ", "0.", "#"])
def test_a_hostile_line_takes_no_time(unit: str) -> None:
    line = unit * 500_000
    began = time.process_time()

    coloured(line, "a.cpp", False)
    inside_comments("a.cpp", [line[:900], line[:100_000]])

    assert time.process_time() - began < 0.2
