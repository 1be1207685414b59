"""Conditions, against Python's own evaluation of the same trees, and against whatever people may type."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayer.conditions import MAX_BYTES, MAX_LENGTH, MAX_NESTING, MAX_SHIFT, MAX_STRING, Condition, ConditionError, Value, parse
from traces._errors import RepriseError, UsageError


@dataclass(frozen=True)
class Event:
    name: str = "fd_write"
    args: tuple[int, ...] = (1, 64, 2)
    results: tuple[int, ...] = (0,)
    status: int | None = 0
    sent: bytes = b"hello world"
    received: bytes | None = None


@dataclass(frozen=True)
class Struct:
    """A value of the source: a struct, an array, or a pointer."""

    members: Mapping[str, Value] = field(default_factory=dict)
    items: tuple[Value, ...] = ()
    target: Value | None = None
    number: int | None = None

    def scalar(self) -> Value:
        if self.number is None:
            raise ValueError("a struct is not a number")
        return self.number

    def member(self, name: str, /) -> Value:
        return self.members[name]

    def index(self, i: int, /) -> Value:
        if not 0 <= i < len(self.items):
            raise IndexError(f"the array has {len(self.items)} items")
        return self.items[i]

    def deref(self) -> Value:
        if self.target is None:
            raise ValueError("this is not a pointer")
        return self.target


class Layered:
    """Claims to have a simpler value, for ever."""

    def scalar(self) -> Value:
        return self

    def member(self, name: str, /) -> Value:
        return self

    def index(self, i: int, /) -> Value:
        return self

    def deref(self) -> Value:
        return self


MEMORY = bytearray(65536)
MEMORY[16:32] = bytes(range(0xF0, 0x100))
MEMORY[64:70] = b"caf\xc3\xa9\0"
MEMORY[128:136] = struct.pack("<d", 1.5)
MEMORY[65533:] = b"ab\0"
AGENT = Struct({"count": 3, "name": b"bob", "inner": Struct({"x": 5})})
VARIABLES: dict[str, Value] = {
    "amount": 120,
    "agent": AGENT,
    "p": Struct(target=AGENT, number=64),
    "buf": Struct(items=(1, 2, 3, 4)),
    "ns::x": 9,
    "layered": Layered(),
}


@dataclass
class Here:
    clock: int = 1000
    pc: int = 0x42
    depth: int = 3
    current: object | None = field(default_factory=Event)

    def local(self, i: int, /) -> Value:
        return (0xFFFFFFFF, 5, 0x3FC00000, 2.5)[i]

    def global_(self, i: int, /) -> Value:
        return (0x10000, 7)[i]

    def global_named(self, name: str, /) -> Value:
        return {"__stack_pointer": 0x10000, "a.b": 2}[name]

    def memory(self, addr: int, n: int, /) -> bytes:
        if addr + n > len(MEMORY):
            raise IndexError
        return bytes(MEMORY[addr : addr + n])

    def event(self) -> object | None:
        return self.current

    def variable(self, name: str, /) -> Value:
        return VARIABLES[name]


HERE = Here()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0xff_00", 0xFF00),
        ("0b1010_1010", 0xAA),
        ("1_000", 1000),
        ("1.5e3", 1500.0),
        ('"a\\n\\x41\\u{1F600}"', "a\nA\U0001f600"),
        ("b'\\xff\\0\"'", b'\xff\0"'),
        ("local0", 0xFFFFFFFF),
        ("local[1]", 5),
        ("local[local1 - 4]", 5),
        ("signed(local0, 32)", -1),
        ("signed(0x80, 8)", -128),
        ("f32(local2)", 1.5),
        ("f64(0x3ff8000000000000)", 1.5),
        ("f32(local3)", 2.5),
        ("global0", 0x10000),
        ("global[1]", 7),
        ("$__stack_pointer - 16", 0xFFF0),
        ("$a.b", 2),
        ("pc", 0x42),
        ("clock", 1000),
        ("depth", 3),
        ("event", True),
        ("event.name", "fd_write"),
        ("event.args[1]", 64),
        ("event.results[0]", 0),
        ("event.status", 0),
        ("len(event.sent)", 11),
        ("len(event.args)", 3),
        ('b"world" in event.sent', True),
        ('"world" in event.sent', True),
        ("0x20 in event.sent", True),
        ("event.sent[0]", 104),
        ("64 in event.args", True),
        ("event.name in ('fd_read', 'fd_write')", True),
        ("event.name not in ('fd_read', 'fd_write')", False),
        ("5 in (1, 2, 5,)", True),
        ("5 in (1, 'a', b'b')", False),
        ("1 in (2) + 3", False),
        ("5 in (2) + 3", True),
        ("1 in (event.args)", True),
        ("not 1 in (1, 2)", False),
        ("amount > 100", True),
        ("agent.count", 3),
        ("agent.inner.x + 1", 6),
        ("agent.name == 'bob'", True),
        ("p->count", 3),
        ("(*p).count", 3),
        ("p == 64", True),
        ("text[p]", "café"),
        ("buf[3]", 4),
        ("buf[buf[0]]", 2),
        ("ns::x", 9),
        ("u8[16]", 0xF0),
        ("i8[16]", -16),
        ("u16[16]", 0xF1F0),
        ("i16[16]", -3600),
        ("u32[16] == 0xf3f2f1f0", True),
        ("i32[16]", 0xF3F2F1F0 - (1 << 32)),
        ("u64[16] >> 56", 0xF7),
        ("i64[16] < 0", True),
        ("f64[128]", 1.5),
        ("f32[0]", 0.0),
        ("bytes[16, 2]", b"\xf0\xf1"),
        ("text[65533]", "ab"),
        ("text[65535]", ""),
        ("u8[u8[0] + 16]", 0xF0),
        ("1 + 2 * 3", 7),
        ("10 - 4 - 3", 3),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7 / 2.0", 3.5),
        ("6 & 3 == 2", True),
        ("1 << 3 | 1", 9),
        ("~0", -1),
        ("!5", False),
        ("!0 + 1", 2),
        ("not 5 == 5", False),
        ("0 || 2", True),
        ("0 or 0 and nothing", False),
        ("1 || nothing", True),
        ("0 && nothing", False),
        ("1 && 0 || 1", True),
        ("'a' + 'b' == 'ab'", True),
        ("b'a' < b'b'", True),
        ("1 == 1.0", True),
        ("'é' == b'\\xc3\\xa9'", True),
        ("-p", -64),
        ("*p == *p || 1", None),
    ],
)
def test_values(text: str, value: object) -> None:
    if value is None:
        with pytest.raises(ConditionError, match="a struct is not a number"):
            parse(text).evaluate(HERE)
        return
    found = parse(text).evaluate(HERE)
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)
    assert parse(text).holds(HERE) is bool(value)


def test_a_variable_alone_stays_what_it_is() -> None:
    assert parse("agent").evaluate(HERE) is AGENT


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("1 + 1", set()),
        ("pc == 5 && clock > 3", set()),
        ("local0 + depth", {"frame"}),
        ("local[3]", {"frame"}),
        ("u8[4] + len(bytes[0, 1]) + text[1]", {"memory"}),
        ("$sp + global0 + global[1]", {"globals"}),
        ("event.name == 'a'", {"event"}),
        ("p->len in (local0, event.status)", {"source", "frame", "event"}),
        ("x in (u8[0])", {"source", "memory"}),
    ],
)
def test_needs(text: str, needs: set[str]) -> None:
    assert parse(text).needs == needs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x == ", "expected a value at column 6: 'x == '"),
        ("", "expected a value at column 1: ''"),
        ("1 2", "expected an operator at column 3: '1 2'"),
        ("(1", "expected ')' at column 3: '(1'"),
        ("1 @ 2", "an unexpected '@' at column 3: '1 @ 2'"),
        ("'abc", "an unfinished string at column 1: ''abc'"),
        ("'\\q'", "an unknown escape \\q at column 2: ''\\q''"),
        ("0x", "a malformed number at column 1: '0x'"),
        ("007", "a malformed number at column 1: '007'"),
        ("1 < 2 < 3", "comparisons do not chain: join them with && at column 7: '1 < 2 < 3'"),
        ("sqrt(2)", "there is no function 'sqrt', only signed, f32, f64, len at column 1: 'sqrt(2)'"),
        ("signed(2)", "expected ',' at column 9: 'signed(2)'"),
        (
            "event.nam",
            "an event has name, args, results, status, sent, received: expected one of them at column 7: 'event.nam'",
        ),
        ("x not 5", "expected an operator at column 3: 'x not 5'"),
        ("a = 5", "an unexpected '=' at column 3: 'a = 5'"),
        ("b'é'", "LATIN"),
        ("b'\\u{41}'", "an unknown escape \\u{41} at column 3: 'b'\\u{41}''"),
        ("b'€'", "bytes that are not bytes at column 1: 'b'€''"),
        ("(" * 5000, f"5000 characters; at most {MAX_LENGTH} are allowed"),
        ("x\n== \x1b[2J", "an unexpected '\\\\x1b' at column 6: 'x\\n== \\x1b[2J'"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str, message: str) -> None:
    if message == "LATIN":
        assert parse(text).evaluate(HERE) == b"\xe9"
        return
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value) == f"condition: {message}"


@pytest.mark.parametrize("opening", ["(", "-", "!", "not ", "u8[", "len(", "x[", "1 in (", "1 || (", "1 in ((", "~", "*", "1+("])
def test_nesting_is_bounded(opening: str) -> None:
    with pytest.raises(UsageError, match=f"more than {MAX_NESTING} levels"):
        parse(opening * (4000 // len(opening)))


def test_long_flat_conditions_are_fine() -> None:
    assert parse("+".join(["1"] * 2000)).evaluate(HERE) == 2000
    assert parse("||".join(["0"] * 1300)).evaluate(HERE) is False
    nested = "(" * 30 + "1" + ")" * 30
    assert parse(nested).evaluate(HERE) == 1
    assert parse("1 in (" * 30 + "1" + ")" * 30).evaluate(HERE) is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 + 1 / 0", "division by zero at column 7: '5 + 1 / 0'"),
        ("1 % 0", "division by zero"),
        ("1.5 / 0", "division by zero"),
        ("nothing", "there is no 'nothing' here at column 1"),
        ("$nothing", "there is no global $nothing"),
        ("local9", "there is no local 9"),
        ("local[-1]", "there is no local -1"),
        ("global[1 << 100]", "there is no global a huge number"),
        ("agent.nothing", "there is no member 'nothing'"),
        ("amount.x", "there is no member 'x' in a number"),
        ("amount[1]", "a number has no items"),
        ("buf[9]", "the array has 4 items"),
        ("event.args[7]", "there is no item 7, only 3"),
        ("*amount", "only a pointer of the source can be followed"),
        ("*agent", "this is not a pointer"),
        ("agent + 1", "a struct is not a number"),
        ("agent", "a struct is not a number"),
        ("layered == 1", "this has no simple value"),
        ("u32[65533]", "memory does not reach from 65533 over 4 bytes"),
        ("u8[-1]", "memory does not reach from -1 over 1 bytes"),
        ("u8[1 << 70]", "memory does not reach from a huge number over 1 bytes"),
        ("text[65536]", "memory does not reach from 65536 over 1 bytes"),
        ("bytes[0, 1 << 30]", "a read of 1073741824 bytes; 0 to 1048576 are possible"),
        ("bytes[0, -1]", "a read of -1 bytes"),
        ("1 << 5000", "a shift by 5000; 0 to 4096 are possible"),
        ("1 << -1", "a shift by -1"),
        ("1 << (1 << 4000)", "a shift by a huge number"),
        ("1.5 & 1", "expected an integer, not a fraction"),
        ("'a' + 1", "expected a number, not text"),
        ("'a' * 1000000", "expected a number, not text"),
        ("'a' < 1", "text cannot be compared with a number"),
        ("event.args == event.args", "lists cannot be compared"),
        ("event.received", "the event has no received"),
        ("len(5)", "a number has no length"),
        ("signed(1, 0)", "an integer of 0 bits"),
        ("f32(1 << 32)", "more than the 32 bits of a float"),
        ("1.5 + (1 << 4000)", "int too large to convert to float"),
        ("-'a'", "expected a number, not text"),
    ],
)
def test_what_goes_wrong_with_values_is_said(text: str, message: str) -> None:
    condition = parse(text)
    with pytest.raises(ConditionError) as caught:
        condition.holds(HERE)
    assert str(caught.value).startswith(f"condition: {message}")
    assert "\n" not in str(caught.value)


def test_no_event_here() -> None:
    nowhere = Here(current=None)
    assert parse("event").evaluate(nowhere) is False
    assert parse("event && event.name == 'a'").holds(nowhere) is False
    with pytest.raises(ConditionError, match="there is no event here"):
        parse("event.name == 'a'").holds(nowhere)


def test_results_cannot_grow_without_bound() -> None:
    for text in (
        "*".join(["(1 << 4000)"] * 40),
        "<<".join(["1", *["4000"] * 40]),
        "+".join([f"bytes[0, {1 << 16}]"] * (MAX_BYTES // (1 << 16) + 1)),
    ):
        with pytest.raises(ConditionError, match="of more than"):
            parse(text).evaluate(HERE)


def test_text_that_does_not_end_is_cut_off() -> None:
    class Full(Here):
        def memory(self, addr: int, n: int, /) -> bytes:
            return b"x" * n

    with pytest.raises(ConditionError, match=f"no text of up to {MAX_STRING} bytes at 5"):
        parse("text[5]").evaluate(Full())


# --- against Python


def truncated(left: float, right: float) -> float:
    if isinstance(left, int) and isinstance(right, int):
        return math.trunc(Fraction(left, right))
    return left / right


def remainder(left: float, right: float) -> float:
    if isinstance(left, int) and isinstance(right, int):
        return left - right * int(truncated(left, right))
    return math.fmod(left, right)


ORACLE: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "|": (5, operator.or_),
    "^": (6, operator.xor),
    "&": (7, operator.and_),
    "<<": (8, operator.lshift),
    ">>": (8, operator.rshift),
    "+": (9, operator.add),
    "-": (9, operator.sub),
    "*": (10, operator.mul),
    "/": (10, truncated),
    "%": (10, remainder),
    "==": (4, operator.eq),
    "!=": (4, operator.ne),
    "<": (4, operator.lt),
    "<=": (4, operator.le),
    ">": (4, operator.gt),
    ">=": (4, operator.ge),
    "&&": (2, lambda left, right: bool(left) and bool(right)),
    "||": (1, lambda left, right: bool(left) or bool(right)),
}
UNARY: dict[str, Callable[[Any], Any]] = {"-": operator.neg, "~": operator.invert, "!": operator.not_, "+": operator.pos}
WORDS = {"&&": "and", "||": "or"}


@dataclass(frozen=True)
class Tree:
    text: str
    binding: int
    value: Callable[[], Any]


def leaf(number: float) -> Tree:
    text = hex(number) if isinstance(number, int) and number % 3 == 0 else repr(number)
    return Tree(text, 12, lambda: number)


def joined(sign: str, left: Tree, right: Tree, spell: bool) -> Tree:
    """Two trees under an operator, with parentheses only where precedence wants them."""
    binding, work = ORACLE[sign]
    first = left.text if left.binding >= binding + (binding == 4) else f"({left.text})"
    second = right.text if right.binding > binding else f"({right.text})"

    def value() -> Any:
        if sign in ("&&", "||"):
            begun = bool(left.value())
            return begun if begun is (sign == "||") else bool(right.value())
        begun = left.value()
        other = right.value()
        if sign in ("<<", ">>") and not 0 <= other <= MAX_SHIFT:
            raise ValueError("shift")
        return work(begun, other)

    return Tree(f"{first} {WORDS.get(sign, sign) if spell else sign} {second}", binding, value)


def signed_tree(sign: str, inner: Tree) -> Tree:
    text = inner.text if inner.binding >= 11 else f"({inner.text})"
    return Tree(f"{sign}{text}", 11, lambda: UNARY[sign](inner.value()))


LEAVES = st.one_of(
    st.integers(0, 20), st.integers(0, (1 << 64) - 1), st.floats(0, 1e6).filter(lambda number: "e-" not in repr(number))
).map(leaf)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(joined, st.sampled_from(list(ORACLE)), inner, inner, st.booleans()),
        st.builds(signed_tree, st.sampled_from(list(UNARY)), inner),
    ),
    max_leaves=12,
)


def outcome(run: Callable[[], Any]) -> tuple[str, object]:
    try:
        value = run()
    except (ConditionError, TypeError, ValueError, ArithmeticError):
        return "error", None
    return type(value).__name__, "nan" if value != value else value


@settings(max_examples=600, deadline=None)
@given(TREES)
def test_expressions_mean_what_python_says(tree: Tree) -> None:
    ours = outcome(lambda: parse(tree.text).evaluate(HERE))
    theirs = outcome(tree.value)
    if ours[0] == "error" and theirs[0] != "error":  # only for what is out of bounds here
        with pytest.raises(ConditionError, match=r"a shift by|of more than"):
            parse(tree.text).evaluate(HERE)
    else:
        assert ours == theirs


@given(st.integers(-(1 << 70), 1 << 70), st.integers(1, 128))
def test_signed(number: int, bits: int) -> None:
    found = parse(f"signed({number}, {bits})").evaluate(HERE)
    assert isinstance(found, int)
    assert -(1 << (bits - 1)) <= found < 1 << (bits - 1)
    assert (found - number) % (1 << bits) == 0


@given(st.binary(max_size=20), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_literals(raw: bytes, text: str) -> None:
    spelled = "".join(f"\\x{byte:02x}" for byte in raw)
    assert parse(f'b"{spelled}"').evaluate(HERE) == raw
    quoted = "".join(f"\\u{{{ord(letter):x}}}" if letter in '"\\\n' else letter for letter in text)
    assert parse(f'"{quoted}"').evaluate(HERE) == text


# --- whatever people may type

PIECES = st.sampled_from(
    """local0 local[ global1 $sp pc clock depth event event.name event.args p->count agent.count buf[ *p u8[ i64[ f64[ bytes[
    text[ signed( f32( len( ( ) ] , . -> && || ! == != < <= > >= + - * / % & | ^ ~ << >> in not and or 0 1 64 0xff 1.5 65535
    4096 'a' b'\\xff' "x" x nothing amount""".split()  # noqa: SIM905
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join)))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        condition = parse(text)
    except UsageError as error:
        assert str(error).isprintable()
        return
    assert isinstance(condition, Condition)
    assert condition.needs <= {"frame", "memory", "globals", "event", "source"}
    try:
        condition.evaluate(HERE)
        condition.holds(HERE)
    except RepriseError as error:
        assert isinstance(error, ConditionError)
        assert str(error).isprintable()
