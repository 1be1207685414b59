"""Details, errors and the C mirror of the layout."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

import traces
from recorder.boundary import wasi_p1
from traces import columns, layout
from traces._errors import TraceError
from traces.columns import Columniser, detail_problem, printable
from traces.layout import Kind, Status
from traces.manifest import Export, Import

SOURCE = (Path(traces.__file__).parent / "columns.c").read_text(encoding="utf-8")


def record(kind: Kind, body: bytes = b"", index: int = 0xFFFF, status: Status = Status.COMPLETE) -> bytes:
    return struct.pack("<IHBBI", 12 + len(body), index, kind, status, 0) + body


def chunk(address: int, data: bytes, sent: bool = False) -> bytes:
    return struct.pack("<II", address, len(data) | sent << 31) + data + bytes(-len(data) % 4)


def detail(
    template: str, params: str, body: bytes, *, status: Status = Status.COMPLETE, results: tuple[str, ...] = ("i32",)
) -> str:
    entry = Import("m", "f", tuple(params.split()), results, "wasi", (), template, False)
    batch = Columniser([entry], []).convert(record(Kind.CALL, body, 0, status))
    return str(batch.column("detail")[0].as_py())


def test_the_c_source_mirrors_the_layout() -> None:
    for name in ("HEADER_SIZE", "NO_IMPORT", "MAX_IMPORTS", "CHUNK_HEADER", "META_MEMORY"):
        found = re.search(rf"\b{name} = (\w+)", SOURCE)
        assert found and int(found[1], 0) == getattr(layout, name)
    for name in ("START_TARGET", "TABLE_TARGET", "CHUNK_LENGTH_MASK", "CHUNK_MEMORY_SHIFT", "CHUNK_MEMORY_MASK"):
        found = re.search(rf"#define {name} (\w+?)u?\n", SOURCE)
        assert found and int(found[1], 0) == getattr(layout, name)
    for name in ("CHUNK_WIDE", "CHUNK_SENT"):
        found = re.search(rf"#define {name} \(1u << (\d+)\)", SOURCE)
        assert found and 1 << int(found[1]) == getattr(layout, name)
    kinds = re.search(r"enum \{ CALL = 1, ([A-Z_, ]+) \}", SOURCE)
    assert kinds and ["CALL", *kinds[1].split(", ")] == [kind.name for kind in Kind] == [k.upper() for k in columns.KINDS]
    assert [kind.value for kind in Kind] == list(range(1, len(Kind) + 1))
    references = re.search(r"enum \{ ([A-Z_, ]*REF_TAKEN) \}", SOURCE)
    named = {"REF_NULL": "NULL", "REF_EXPORT": "EXPORT_FUNC", "REF_IMPORT": "IMPORT_FUNC", "REF_EXTERN": "EXTERN"}
    assert references
    assert [named.get(r, r[4:]) for r in references[1].split(", ")] == [ref.name for ref in sorted(layout.Ref)]
    depth = re.search(r"MAX_DEPTH = (\d+)", SOURCE)
    assert depth and int(depth[1]) == columns.MAX_DEPTH


@pytest.mark.toolchain
def test_the_module_is_what_its_source_builds_to() -> None:
    from traces.build_columns import main

    assert main(["--check"]) == 0


@pytest.mark.parametrize("function", wasi_p1.TABLE.values(), ids=lambda f: str(f.name))
def test_every_wasi_template_fits_its_function(function: wasi_p1.Function) -> None:
    entry = Import(wasi_p1.MODULE, function.name, function.params, function.results, "wasi", (), function.detail, True)

    assert detail_problem(entry) is None


PATH_OPEN = "path_open(dir={0}, path={1:text:2}) → fd {3:u32} {r0:errno}"


@pytest.mark.parametrize(
    ("errno", "status", "expected"),
    [
        (0, Status.COMPLETE, 'path_open(dir=3, path="plan.json") → fd 5'),
        (44, Status.COMPLETE, 'path_open(dir=3, path="plan.json") → errno noent'),
        (200, Status.COMPLETE, 'path_open(dir=3, path="plan.json") → errno 200'),
        (0, Status.OPEN, 'path_open(dir=3, path="plan.json")'),
    ],
)
def test_a_call_shows_its_outcome(errno: int, status: Status, expected: str) -> None:
    body = struct.pack("<5I", 3, 100, 9, 64, errno) + chunk(100, b"plan.json", True) + chunk(64, struct.pack("<I", 5))

    assert detail(PATH_OPEN, "i32 i32 i32 i32", body, status=status) == expected


@pytest.mark.parametrize(
    ("template", "params", "values", "expected"),
    [
        ("{0}", "i32", struct.pack("<i", -1), "4294967295"),
        ("{0:d}", "i32", struct.pack("<i", -1), "-1"),
        ("{0:d}", "i64", struct.pack("<q", -(2**63)), "-9223372036854775808"),
        ("{0:x}", "i64", struct.pack("<Q", 0xFEDC), "0xfedc"),
        ("{0:f}", "f64", struct.pack("<d", -1234.5), "-1234.5"),
        ("{0:f}", "f32", struct.pack("<f", 0.1), "0.1"),
        ("{0:f}", "f64", struct.pack("<d", 1e300), "1e+300"),
        ("{0:f}", "f64", struct.pack("<d", 5e-324), "4.94066e-324"),
        ("{0:f}", "f64", struct.pack("<d", 9.9999999), "10"),
        ("{0:f}", "f64", struct.pack("<d", 0.00025), "0.00025"),
        ("{0:f}", "f32", struct.pack("<I", 0xFFA00001), "-nan:0x200001"),
        ("{0:f}", "f64", struct.pack("<d", float("inf")), "inf"),
        ("{0:enum:a|b}", "i32", struct.pack("<I", 1), "b"),
        ("{0:enum:a|b}", "i32", struct.pack("<I", 2), "2"),
        ("{0:flags:a|b|c}", "i32", struct.pack("<I", 5), "a|c"),
        ("{0:flags:a|b|c}", "i32", struct.pack("<I", 0), "0"),
        ("{0:flags:a}", "i32", struct.pack("<I", 9), "a|0x8"),
        ("{0}", "v128", bytes(range(16)), "0x0f0e0d0c0b0a09080706050403020100"),
        ("{{{0}}}", "i32", struct.pack("<I", 7), "{7}"),
        ("", "i32 f64", struct.pack("<Id", 7, 0.5), "f(7, 0.5)"),
        ("{9}", "i32", struct.pack("<I", 7), "f(7)"),
        ("{r0}", "i32", struct.pack("<I", 7), "f(7)"),
        ("x → {0:u32}", "i32", struct.pack("<I", 7), "x → ?"),
        ("x{1:text:0}", "i32 i32", struct.pack("<II", 4, 9), 'x?'),
        ("x{1:text:0}", "i32 i32", struct.pack("<II", 0, 9), 'x""'),
    ],
)  # fmt: skip
def test_formats(template: str, params: str, values: bytes, expected: str) -> None:
    assert detail(template, params, values + bytes(4)) == expected


@pytest.mark.parametrize(
    "text",
    [b"plain", b'q"\\\n\r\t', b"\x1b[31m\x00\x7f", "snö ✓ 😀".encode(), b"\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80",
     "\u202eevil\u2066\ufeff\u0085".encode(), b"a" * 201, ("é" * 100).encode(), ("a" + "é" * 100).encode()],
)  # fmt: skip
def test_guest_text_is_escaped_as_python_escapes_it(text: bytes) -> None:
    shown = detail("{0:text:1}", "i32 i32", struct.pack("<III", 8, len(text), 0) + chunk(8, text, True))

    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", shown)
    if len(text) <= 200 and text.decode("utf-8", "replace").encode() == text:
        assert shown == f'"{printable(text.decode())}"'
    else:
        assert "\\x" in shown or "…" in shown


def test_a_return_shows_the_outcome_with_the_arguments_of_its_call() -> None:
    entry = Import("m", "f", ("i32",), ("i32",), "wasi", (), "f({0}) → {0:u32} {r0:errno}", True)
    window = record(Kind.CALL, struct.pack("<II", 64, 0), 0, Status.OPEN)
    window += record(Kind.RETURN, struct.pack("<I", 0) + chunk(64, struct.pack("<I", 9)), 0)
    window += record(Kind.CALL, struct.pack("<II", 64, 0), 0, Status.OPEN) + record(Kind.RETURN, struct.pack("<I", 8), 0)
    batch = Columniser([entry], []).convert(window)

    assert batch.column("detail").to_pylist() == ["f(64)", "→ 9", "f(64)", "→ errno badf"]
    assert batch.column("status").to_pylist() == ["open", "ok", "open", "errno"]


def test_what_is_not_a_call_has_a_detail_too() -> None:
    all_ones = 2**64 - 1
    window = b"".join(
        [
            record(Kind.EXPORT, struct.pack("<III", 0, 0, 5), status=Status.OPEN),
            record(Kind.CALLBACK, struct.pack("<II", layout.TABLE_TARGET | 1, 7) + bytes(8)),
            record(Kind.GROWTH, struct.pack("<IIQQ", 0, 0, 1, 2)),
            record(Kind.GROWTH, struct.pack("<IIQQ", 1, 2, 9, all_ones)),
            record(Kind.GLOBAL, struct.pack("<IIQQ", 3, 0, 255, 0)),
            record(Kind.TABLE, struct.pack("<IIQQQ", 0, layout.Ref.EXPORT_FUNC, 5, 0, 1)),
            record(Kind.TABLE, struct.pack("<IIQQQ", 0, layout.Ref.TAKEN, 5, 9, 1)),
            record(Kind.POKE, chunk(0, b"abc") + chunk(9, b"d", True)),
            record(Kind.GROW_FAILED, struct.pack("<IIQ", 0, 0, 4)),
            record(Kind.STOP, struct.pack("<IIQ", layout.StopReason.FUEL, 0, 77)),
            record(Kind.TRAP, struct.pack("<II", 1, 11) + b"unreachable\0"),
            record(Kind.EXIT, struct.pack("<II", 3, 0)),
            record(Kind.EXPORT, struct.pack("<II", layout.START_TARGET, 0)),
        ]
    )
    batch = Columniser([], [Export("run", ("i32",), ())]).convert(window)

    assert batch.column("detail").to_pylist() == [
        "run(5)", "table 1[7](…)", "memory 0 grew by 1 from 2 pages", "table 2 was refused 9 more elements", "global 3 = 0xff",
        'table 0[5] = export "run"', "table 0[5] was taken as function 9", "2 ranges, 4 bytes",
        "growth request 4 of memory 0 failed in the operating system",
        "fuel at clock 77", "unreachable", "exit(3)", "(start)()",
    ]  # fmt: skip
    assert batch.column("target").to_pylist() == ["run", "table 1[7]", *[None] * 10, "(start)"]


CALL = Import("m", "f", ("i32",), (), "wasi")


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (b"\x0c\0\0\0", "too short"),
        (struct.pack("<IHBBI", 8, 0, 1, 1, 0), "size"),
        (struct.pack("<IHBBI", 14, 0, 1, 1, 0) + b"xx", "size"),
        (struct.pack("<IHBBI", 2**32 - 4, 0, 1, 1, 0), "beyond the window"),
        (record(Kind.CALL, bytes(4), 1), "imports table"),
        (record(Kind.CALL, b"", 0), "do not fit"),
        (struct.pack("<IHBBI", 12, 0xFFFF, 0, 1, 0), "kind"),
        (struct.pack("<IHBBI", 12, 0xFFFF, 15, 1, 0), "kind"),
        (struct.pack("<IHBBI", 16, 0, 1, 3, 0) + bytes(4), "status"),
        (record(Kind.POKE, b"", 0), "names an import"),
        (record(Kind.EXPORT, struct.pack("<II", 9, 0)), "exports table"),
        (record(Kind.RETURN), "nothing is open"),
        (record(Kind.CALL, bytes(4), 0, Status.OPEN) + record(Kind.RETURN, index=0xFFFF), "another import"),
        (record(Kind.DATA), "payload"),
        (record(Kind.GROWTH, bytes(28)), "last field"),
        (record(Kind.TRAP, struct.pack("<II", 0, 2**32 - 1)), "do not fit"),
        (record(Kind.POKE, bytes(4)), "piece of memory"),
        (record(Kind.POKE, struct.pack("<II", 0, 9) + bytes(8)), "piece of memory"),
        (record(Kind.POKE, struct.pack("<II", 0, 1 << 30)), "piece of memory"),
        (record(Kind.POKE, struct.pack("<II", 1, 63 << 24)), "timing"),
        (record(Kind.DEFINE, struct.pack("<II", 1, 4) + b"null"), "cannot be read"),
        (record(Kind.CALL, bytes(4), 0, Status.OPEN) * (columns.MAX_DEPTH + 1), "16384"),
    ],
)  # fmt: skip
def test_an_error_says_where_and_what(bad: bytes, what: str) -> None:
    columniser = Columniser([CALL], [])
    columniser.convert(record(Kind.CALL, bytes(4), 0))
    good = record(Kind.CALL, bytes(4), 0) * 2
    with pytest.raises(TraceError, match=rf"^record \d+ at byte \d+ of window 1: .*{what}.*; ") as error:
        columniser.convert(good + bad)

    assert re.match(r"record (3|4|16387) ", str(error.value))
    assert columniser.scan(good + bad) >= len(good)
    assert columniser.rows == 1 and columniser.windows == 1


def test_definitions_are_taken_back_with_their_window() -> None:
    columniser = Columniser([], [])
    text = json.dumps({"module": "d", "name": "g", "params": ["i32"], "results": []}).encode()
    define = record(Kind.DEFINE, struct.pack("<II", 0, len(text)) + text + bytes(-len(text) % 4))
    call = record(Kind.CALL, bytes(4), 0)
    for _ in range(2):
        assert columniser.scan(define + call) == len(define + call)
        assert columniser.scan(define + call + b"\0") == len(define + call)
        with pytest.raises(TraceError):
            columniser.convert(define + call + b"\0")
        assert columniser.imports == [] and columniser.scan(call) == 0

    assert columniser.convert(define + call).column("import").to_pylist() == [None, "d.g"]
    assert columniser.convert(define + call).column("detail").to_pylist() == ['import "d.g"', "g(0)"]


def test_one_distinct_detail_per_row_is_bounded() -> None:
    entry = Import("m", "f" * 300, ("i64",), (), "wasi")
    window = b"".join(record(Kind.CALL, struct.pack("<Q", i), 0) for i in range(160_000))
    details = Columniser([entry], []).convert(window).column("detail")

    assert len(details.dictionary.to_pylist()[-1]) < 240
    assert 100_000 < len(details.dictionary) < 160_000 and details.null_count == 160_000 - len(details.dictionary)


def test_memoryviews_and_many_windows_are_taken_alike() -> None:
    window = record(Kind.CALL, struct.pack("<I", 7), 0) * 3
    whole, parts = Columniser([CALL], []), Columniser([CALL], [])
    first = parts.convert(memoryview(bytearray(window))[:16])
    second = parts.convert(memoryview(window)[16:])

    assert whole.convert(window).to_pylist() == first.to_pylist() + second.to_pylist()
