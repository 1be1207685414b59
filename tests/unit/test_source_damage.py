"""Debug information is input like any other: whatever it holds, nothing but a clean error comes out, and soon."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.wasm.binary import uleb
from recorder.wasm.module import Module, parse_module
from replayer.source.debuginfo import DebugInfo, open_source
from replayer.source.values import Value
from traces._errors import RepriseError, UsageError

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests" / "guests"
NAMES = ("debug_types_O0_4", "debug_types_O0_5", "debug_types_O2_4", "debug_types_O2_5", "debug_classes", "debug_rust")
MODULES = {name: parse_module((GUESTS / f"{name}.wasm").read_bytes()) for name in NAMES}
LONGEST = 20.0
"""Seconds that looking at everything may take; a hundredth is normal."""


class Frame:
    """Knows every local, and has memory everywhere, with pointers into itself."""

    def __init__(self, pc: int) -> None:
        self.pc = pc

    def local(self, index: int) -> int | None:
        return None if index % 5 == 4 else 0x1000 + index

    def operand(self, index: int) -> int | None:
        return 3

    def global_(self, index: int) -> int | None:
        return 0x2000

    def memory(self, address: int, length: int) -> bytes | None:
        assert address >= 0 and length >= 0
        return bytes((address + at) * 7 % 256 for at in range(length)) if address + length < 0x20000 else None


def with_sections(module: Module, replaced: dict[str, bytes]) -> Module:
    """The module with other content in some custom sections."""
    data = module.data[:8]
    for section in module.sections:
        if section.name in replaced:
            name = section.name.encode()
            payload = uleb(len(name)) + name + replaced[section.name]
            data += b"\0" + uleb(len(payload)) + payload
        else:
            data += module.data[section.offset : section.end]
    return parse_module(data)


def open_up(value: Value, depth: int) -> None:
    assert value.text and len(value.text) < 20_000
    assert value.status in ("ok", "optimised out", "unavailable")
    assert value.raw is None or len(value.raw) <= 4096
    if depth:
        for child in value.children[:5]:
            open_up(child, depth - 1)


def look_at_everything(info: DebugInfo) -> int:
    """Every question there is, at many places; returns how many values were shown."""
    shown = 0
    for file in info.files:
        info.text(file)
        info.text_is_current(file)
        for line in (1, 58, 91):
            with contextlib.suppress(RepriseError):
                info.line_starts(file, line)
    for function in info.functions()[:20]:
        info.prologue_end(function)
    for pc in range(0, 1300, 37):
        info.location(pc)
        info.function(pc)
        info.ranges_of_line(pc)
        info.inlined(pc)
        for variable in info.variables(pc)[:30]:
            open_up(info.read(variable, Frame(pc)), 3)
            shown += 1
    for variable in info.globals()[:30]:
        open_up(info.read(variable, Frame(5)), 3)
    assert all("\n" not in problem for problem in info.problems)
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_undamaged_everything_is_there(name: str) -> None:
    info = open_source(MODULES[name])
    assert info is not None
    assert look_at_everything(info) > 5
    assert info.problems == []


@st.composite
def damaged(draw: st.DrawFn) -> Module:
    module = MODULES[draw(st.sampled_from(NAMES))]
    names = [section.name for section in module.sections if section.name.startswith(".debug_")]
    replaced: dict[str, bytes] = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        content = bytearray(module.custom(name) or b"")
        for _ in range(draw(st.integers(0, 6))):
            if content:
                at = draw(st.integers(0, len(content) - 1))
                content[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        if draw(st.booleans()):
            content = content[: draw(st.integers(0, len(content)))]
        elif draw(st.integers(0, 4)) == 0:
            at = draw(st.integers(0, len(content)))
            content[at:at] = draw(st.binary(max_size=16))
        replaced[name] = bytes(content)
    return with_sections(module, replaced)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged())
def test_damage_is_never_more_than_missing_information(module: Module) -> None:
    started = time.monotonic()
    try:
        info = open_source(module)
        if info is not None:
            look_at_everything(info)
    except RepriseError as error:
        assert "\n" not in str(error)
    assert time.monotonic() - started < LONGEST


@pytest.mark.parametrize("section", [".debug_abbrev", ".debug_info", ".debug_str", ".debug_line"])
def test_a_section_cut_in_half(section: str) -> None:
    module = MODULES["debug_types_O0_4"]
    content = module.custom(section)
    assert content is not None
    info = open_source(with_sections(module, {section: content[: len(content) // 2]}))
    assert info is not None
    look_at_everything(info)
    assert info.problems or section == ".debug_str"  # names are lost, nothing else


def test_a_damaged_line_program_leaves_the_functions() -> None:
    module = MODULES["debug_types_O0_4"]
    info = open_source(with_sections(module, {".debug_line": b"\xff"}))
    assert info is not None
    assert "run" in {function.name for function in info.functions()}
    assert info.location(300) is None and info.problems == ["the line program of the unit at 0x0 is damaged"]


def test_a_struct_that_holds_itself_ends() -> None:
    """`value` of `struct node` is made to be a `struct node`."""
    module = MODULES["debug_types_O0_4"]
    info = open_source(module)
    assert info is not None
    tail = next(found for found in info.globals() if found.name == "tail")
    node = tail.die.type()
    assert node is not None and node.children[0].text("DW_AT_name") == "value"
    content = bytearray(module.custom(".debug_info") or b"")
    at = node.children[0].attributes["DW_AT_type"].offset
    content[at : at + 4] = node.offset.to_bytes(4, "little")
    info = open_source(with_sections(module, {".debug_info": bytes(content)}))
    assert info is not None
    tail = next(found for found in info.globals() if found.name == "tail")
    value = info.read(tail, Frame(300))
    assert value.text.startswith("{value = {value = {value = {…}")
    open_up(value, 8)


def test_a_typedef_of_itself_ends() -> None:
    module = MODULES["debug_types_O0_4"]
    info = open_source(module)
    assert info is not None
    pc = info.line_starts("debug_types.c", 91)[0]
    alias = next(found for found in info.variables(pc) if found.name == "letter").die.type()
    assert alias is not None and alias.tag == "typedef"
    content = bytearray(module.custom(".debug_info") or b"")
    at = alias.attributes["DW_AT_type"].offset
    content[at : at + 4] = alias.offset.to_bytes(4, "little")
    info = open_source(with_sections(module, {".debug_info": bytes(content)}))
    assert info is not None
    letter = next(found for found in info.variables(pc) if found.name == "letter")
    assert info.read(letter, Frame(pc)).status == "unavailable"


def test_names_cannot_reach_the_terminal() -> None:
    module = MODULES["debug_types_O0_4"]
    content = (module.custom(".debug_str") or b"").replace(b"square_sum", b"sq\x1b[31m\n_s")
    info = open_source(with_sections(module, {".debug_str": content}))
    assert info is not None
    assert "sq\\u{1b}[31m\\u{a}_s" in {function.name for function in info.functions()}


def test_without_pyelftools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "elftools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "elftools", None)
    with pytest.raises(UsageError, match=r"pip install 'reprise-wasm\[inspect\]'"):
        open_source(MODULES["debug_types_O0_4"])
    assert open_source(parse_module((GUESTS / "reactor.wasm").read_bytes())) is None


def test_importing_does_not_import_pyelftools() -> None:
    code = "import sys, replayer.source.debuginfo; sys.exit('elftools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
