"""The expressions people write as conditions of breakpoints: parsed once, evaluated at many places.

A condition is one line: `local0 > 10 && event.name == "fd_write"`, `u32[p->buffer + 8] in (1, 2)`. Integers are
unbounded and start as raw bits, so unsigned, unless a read says otherwise (`i32[...]`, `signed(x, 32)`). Division
and remainder of integers round towards zero, as WebAssembly's do. `& | ^` bind tighter than comparisons, as in
Python and Rust and unlike in C; comparisons do not chain. A text and bytes are equal if the text's UTF-8 is.

A condition comes from a user and runs over a hostile guest's state, millions of times. So there is no loop in
it, every size is bounded before anything is computed, and the parser writes a flat program: how deep an
expression nests matters to the parser alone, which bounds it. What is wrong with the text is a `UsageError`, what
goes wrong with the values a `ConditionError`.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from recorder.wasm.disassembly import escaped
from traces._errors import RepriseError, UsageError

MAX_LENGTH: Final = 4_096
"""Longest condition, in characters."""
MAX_NESTING: Final = 64
MAX_SHIFT: Final = 4_096
MAX_BITS: Final = 1 << 16
"""Largest integer a condition may come to, in bits."""
MAX_BYTES: Final = 1 << 20
"""Most bytes or characters that are read from memory or put together at once."""
MAX_STRING: Final = 1 << 16
"""Longest string `text[addr]` reads, in bytes, the terminating zero left out."""

EVENT_FIELDS: Final = ("name", "args", "results", "status", "sent", "received")


class ConditionError(RepriseError):
    """A condition cannot be evaluated here: a name is not known, memory ends, a number is divided by zero."""


@runtime_checkable
class Structured(Protocol):
    """A value of the source language. What its methods raise as LookupError, ValueError or TypeError becomes a
    ConditionError."""

    def scalar(self) -> Value:
        """The number, text or bytes it stands for where one is needed."""
        ...

    def member(self, name: str, /) -> Value: ...

    def index(self, i: int, /) -> Value: ...

    def deref(self) -> Value: ...


Value: TypeAlias = "int | float | str | bytes | Sequence[Any] | Structured"


class Scope(Protocol):
    """Where a condition gets its values from. A method says that something is missing by LookupError."""

    @property
    def clock(self) -> int: ...

    @property
    def pc(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def local(self, i: int, /) -> Value: ...

    def global_(self, i: int, /) -> Value: ...

    def global_named(self, name: str, /) -> Value: ...

    def memory(self, addr: int, n: int, /) -> bytes: ...

    def event(self) -> object | None:
        """What has the attributes in `EVENT_FIELDS`; None where there is no event."""
        ...

    def variable(self, name: str, /) -> Value: ...


_Run = Callable[[list[Any], Scope], None]


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of the program: what it does to the stack, or where it jumps to."""

    run: _Run | None
    """None: a jump."""
    column: int
    """Where in the text it comes from, from 1."""
    when: bool = False
    """A jump is taken if the top of the stack is this; then it stays there, else it is dropped."""
    target: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition."""

    text: str
    needs: frozenset[str]
    """What it reads: "frame" (locals, depth), "memory", "globals", "event", "source" (variables by name, which may
    in turn lie in any of the others)."""
    _program: tuple[_Step, ...]

    def evaluate(self, scope: Scope) -> Value:
        """Its value; a Structured one only if the condition is no more than a variable. Raises ConditionError."""
        stack: list[Any] = []
        at = 0
        while at < len(self._program):
            step = self._program[at]
            at += 1
            if step.run is None:
                if stack[-1] is step.when:
                    at = step.target
                else:
                    stack.pop()
                continue
            try:
                step.run(stack, scope)
            except ConditionError as error:
                raise ConditionError(_located(str(error), step.column, self.text)) from None
            except (LookupError, ValueError, TypeError, ArithmeticError) as error:
                raise ConditionError(_located(str(error) or type(error).__name__, step.column, self.text)) from None
        value: Value = stack.pop()
        return value

    def holds(self, scope: Scope) -> bool:
        """Whether its value is true: a number that is not zero, a text or bytes that are not empty."""
        value = self.evaluate(scope)
        try:
            return _truth(value)
        except ConditionError as error:
            raise ConditionError(_located(str(error), 1, self.text)) from None
        except (LookupError, ValueError, TypeError, ArithmeticError) as error:
            raise ConditionError(_located(str(error), 1, self.text)) from None


def parse(text: str) -> Condition:
    """Read a condition; raises UsageError, in one line, for anything that is none."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"condition: {len(text)} characters; at most {MAX_LENGTH} are allowed")
    parser = _Parser(text)
    parser.expression(0)
    parser.expect_end()
    return Condition(text, frozenset(parser.needs), tuple(parser.program))


def _located(problem: str, column: int, text: str) -> str:
    """The problem with the column it is in, and the text around there."""
    start = max(0, column - 60)
    part = text[start : start + 120]
    shown = ("…" if start else "") + part + ("…" if start + 120 < len(text) else "")
    return f"condition: {escaped(problem)} at column {column}: '{escaped(shown)}'"


# --- tokens

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>0[xX][0-9a-fA-F]+(?:_[0-9a-fA-F]+)*|0[bB][01]+(?:_[01]+)*
        |(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]+(?:_[0-9]+)*)?(?:[eE][+-]?[0-9]+)?)
    |(?P<string>b?"(?:[^"\\\n]|\\.)*"|b?'(?:[^'\\\n]|\\.)*')
    |(?P<global>\$[A-Za-z0-9_.$!?@/:-]*[A-Za-z0-9_$!?@/:])
    |(?P<name>[^\W\d]\w*(?:::[^\W\d]\w*)*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|<<|>>|->|[-+*/%&|^~!<>()\[\],.])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """The name of its group in `_TOKEN`; "end" behind the last one."""
    text: str
    column: int


def _tokens(text: str) -> list[_Token]:
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            problem = "an unfinished string" if text[at] in "\"'" else f"an unexpected {escaped(text[at])!r}"
            raise UsageError(_located(problem, at + 1, text))
        kind = match.lastgroup or ""
        behind = match.end()
        if kind == "number" and re.match(r"[\w.]", text[behind : behind + 1]):
            raise UsageError(_located("a malformed number", at + 1, text))
        if kind != "space":
            found.append(_Token(kind, match[0], at + 1))
        at = behind
    found.append(_Token("end", "", len(text) + 1))
    return found


_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
_escape = re.compile(r"\\(x[0-9a-fA-F]{2}|u\{[0-9a-fA-F]{1,6}\}|.)", re.DOTALL)


def _literal(token: _Token, text: str) -> str | bytes:
    is_bytes = token.text[0] == "b"
    opening = 2 if is_bytes else 1
    inside = token.text[opening:-1]

    def letter(found: re.Match[str]) -> str:
        code = found[1]
        if len(code) == 3:
            return chr(int(code[1:], 16))
        if len(code) > 1 and not is_bytes and int(code[2:-1], 16) < 0x110000:
            return chr(int(code[2:-1], 16))
        if code not in _ESCAPES:
            raise UsageError(_located(f"an unknown escape \\{escaped(code)}", token.column + opening + found.start(), text))
        return _ESCAPES[code]

    plain = _escape.sub(letter, inside)
    if not is_bytes:
        return plain
    try:
        return plain.encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError(_located("bytes that are not bytes", token.column, text)) from None


# --- parsing

_BINDING: Final = {
    "||": 1, "or": 1, "&&": 2, "and": 2,
    "==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "not": 4,
    "|": 5, "^": 6, "&": 7, "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
"""How tight each operator between two values binds; `not` is the one of `not in`."""
_NOT: Final = 3
_COMPARISON: Final = 4
_UNARY: Final = 11
_WORDS: Final = frozenset(("and", "or", "not", "in"))
_READS: Final = {
    "i8": "<b", "u8": "<B", "i16": "<h", "u16": "<H", "i32": "<i", "u32": "<I", "i64": "<q", "u64": "<Q",
    "f32": "<f", "f64": "<d",
}  # fmt: skip
_numbered = re.compile(r"(local|global)([0-9]{1,9})", re.ASCII).fullmatch


class _Parser:
    """A Pratt parser that writes the program as it goes: operands first, then what works on them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0
        self.nesting = 0
        self.program: list[_Step] = []
        self.needs: set[str] = set()

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def error(self, problem: str, token: _Token | None = None) -> UsageError:
        return UsageError(_located(problem, (token or self.token).column, self.text))

    def advance(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self.at += 1
        return token

    def is_sign(self, sign: str, ahead: int = 0) -> bool:
        at = self.at + ahead
        return at < len(self.tokens) and self.tokens[at].kind == "sign" and self.tokens[at].text == sign

    def eat(self, sign: str) -> bool:
        if self.is_sign(sign):
            self.at += 1
            return True
        return False

    def need(self, sign: str) -> None:
        if not self.eat(sign):
            raise self.error(f"expected {sign!r}")

    def expect_end(self) -> None:
        if self.token.kind != "end":
            raise self.error("expected an operator")

    def emit(self, run: _Run, token: _Token) -> None:
        self.program.append(_Step(run, token.column))

    def expression(self, tightest: int) -> None:
        """An expression of operators that bind tighter than `tightest`."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise self.error(f"more than {MAX_NESTING} levels")
        self.prefix()
        self.operators(tightest)
        self.nesting -= 1

    def operators(self, tightest: int) -> None:
        """The operators that bind tighter than `tightest` and what follows each, behind a first value."""
        compared = False
        while True:
            token = self.token
            binding = _BINDING.get(token.text, 0) if token.kind in ("sign", "name") else 0
            if binding <= tightest:
                break
            if binding == _COMPARISON:
                if compared:
                    raise self.error("comparisons do not chain: join them with &&")
                compared = True
            self.advance()
            self.infix(token, binding)

    def infix(self, token: _Token, binding: int) -> None:
        word = token.text
        if binding <= 2:
            self.short_circuit(token, binding)
        elif word in ("in", "not"):
            if word == "not" and self.advance().text != "in":
                raise self.error("expected an operator", token)
            self.container()
            self.emit(_binary(_contains if word == "in" else lambda item, whole: not _contains(item, whole)), token)
        else:
            self.expression(binding)
            self.emit(_binary(_OPERATORS[word]), token)

    def short_circuit(self, token: _Token, binding: int) -> None:
        self.emit(_unary(_truth), token)
        jump = len(self.program)
        self.emit(_nothing, token)
        self.expression(binding)
        self.emit(_unary(_truth), token)
        self.program[jump] = _Step(None, token.column, binding == 1, len(self.program))

    def container(self) -> None:
        """What stands behind `in`: a list in parentheses, or any value."""
        token = self.token
        if not self.eat("("):
            self.expression(_COMPARISON)
            return
        self.expression(0)
        size = 1
        is_list = self.is_sign(",")
        while self.eat(",") and not self.is_sign(")"):
            self.expression(0)
            size += 1
        self.need(")")
        if is_list:
            self.emit(_gather(size), token)
        else:  # a value in parentheses, and perhaps only the beginning of one: `in (a)[2] + b`
            self.postfix()
            self.operators(_COMPARISON)

    def prefix(self) -> None:
        token = self.token
        if token.kind == "sign" and token.text in _PREFIXES:
            self.advance()
            self.expression(_UNARY - 1)
            self.emit(_unary(_PREFIXES[token.text]), token)
            return
        if token.kind == "name" and token.text == "not":
            self.advance()
            self.expression(_NOT)
            self.emit(_unary(_negation), token)
            return
        self.primary()
        self.postfix()

    def primary(self) -> None:
        token = self.advance()
        if token.kind == "number":
            self.emit(_push(_number(token)), token)
        elif token.kind == "string":
            self.emit(_push(_literal(token, self.text)), token)
        elif token.kind == "global":
            self.needs.add("globals")
            name = token.text[1:]
            self.emit(_named(lambda scope: scope.global_named(name), f"there is no global {token.text}"), token)
        elif token.kind == "sign" and token.text == "(":
            self.expression(0)
            self.need(")")
        elif token.kind == "name" and token.text not in _WORDS:
            self.named(token)
        else:
            raise self.error("expected a value", token)

    def named(self, token: _Token) -> None:
        name = token.text
        numbered = _numbered(name)
        if self.is_sign("("):
            self.call(token)
        elif self.is_sign("[") and (name in _READS or name in ("bytes", "text")):
            self.read(token)
        elif name in ("local", "global") and self.eat("["):
            self.expression(0)
            self.need("]")
            self.slot(name, token)
        elif numbered is not None:
            self.emit(_push(int(numbered[2])), token)
            self.slot(numbered[1], token)
        elif name == "event":
            self.event(token)
        elif name == "pc":
            self.emit(lambda stack, scope: stack.append(scope.pc), token)
        elif name == "clock":
            self.emit(lambda stack, scope: stack.append(scope.clock), token)
        elif name == "depth":
            self.needs.add("frame")
            self.emit(lambda stack, scope: stack.append(scope.depth), token)
        else:
            self.needs.add("source")
            self.emit(_named(lambda scope: scope.variable(name), f"there is no {name!r} here"), token)

    def slot(self, kind: str, token: _Token) -> None:
        """A local or global whose index is on the stack."""
        self.needs.add("frame" if kind == "local" else "globals")
        self.emit(_local if kind == "local" else _global, token)

    def event(self, token: _Token) -> None:
        self.needs.add("event")
        if not self.eat("."):
            self.emit(lambda stack, scope: stack.append(scope.event() is not None), token)
            return
        field = self.advance()
        if field.kind != "name" or field.text not in EVENT_FIELDS:
            raise self.error(f"an event has {', '.join(EVENT_FIELDS)}: expected one of them", field)
        self.emit(_event_field(field.text), token)

    def read(self, token: _Token) -> None:
        self.needs.add("memory")
        self.need("[")
        self.expression(0)
        if token.text == "bytes":
            self.need(",")
            self.expression(0)
        self.need("]")
        if token.text == "bytes":
            self.emit(_read_bytes, token)
        else:
            self.emit(_read_text if token.text == "text" else _read_number(_READS[token.text]), token)

    def call(self, token: _Token) -> None:
        name = token.text
        if name not in _FUNCTIONS:
            raise self.error(f"there is no function {name!r}, only {', '.join(_FUNCTIONS)}", token)
        wanted, run = _FUNCTIONS[name]
        self.need("(")
        for position in range(wanted):
            if position:
                self.need(",")
            self.expression(0)
        self.need(")")
        self.emit(run, token)

    def postfix(self) -> None:
        while True:
            token = self.token
            if self.eat("["):
                self.expression(0)
                self.need("]")
                self.emit(_binary(_indexed), token)
            elif self.is_sign(".") or self.is_sign("->"):
                self.advance()
                field = self.advance()
                if field.kind != "name":
                    raise self.error("expected a member", field)
                self.emit(_unary(_member(field.text, token.text == "->")), token)
            else:
                return


def _number(token: _Token) -> int | float:
    text = token.text.replace("_", "")
    if text[:2].lower() in ("0x", "0b"):
        return int(text, 0)
    return float(text) if any(letter in ".eE" for letter in text) else int(text)


# --- steps

_Plain = int | float | str | bytes


def _nothing(stack: list[Any], scope: Scope) -> None:
    pass


def _push(value: _Plain) -> _Run:
    return lambda stack, scope: stack.append(value)


def _named(read: Callable[[Scope], Value], problem: str) -> _Run:
    def run(stack: list[Any], scope: Scope) -> None:
        try:
            stack.append(read(scope))
        except LookupError:
            raise ConditionError(problem) from None

    return run


def _unary(work: Callable[[Any], Any]) -> _Run:
    def run(stack: list[Any], scope: Scope) -> None:
        stack.append(work(stack.pop()))

    return run


def _binary(work: Callable[[Any, Any], Any]) -> _Run:
    def run(stack: list[Any], scope: Scope) -> None:
        right = stack.pop()
        stack.append(work(stack.pop(), right))

    return run


def _gather(size: int) -> _Run:
    def run(stack: list[Any], scope: Scope) -> None:
        items = tuple(stack[-size:])
        del stack[-size:]
        stack.append(items)

    return run


def _plain(value: Any) -> Any:
    """A number, text, bytes or list: what operators work on."""
    for _ in range(8):  # a scalar may come in layers, but not in endless ones
        if isinstance(value, (int, float, str, bytes, list, tuple)):
            return value
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        if not isinstance(value, Structured):
            break
        value = value.scalar()
    raise ConditionError("there is no value here" if value is None else "this has no simple value")


def _kind(value: object) -> str:
    if isinstance(value, (int, float)):
        return "a number"
    return "text" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "a list"


def _real(value: Any) -> int | float:
    plain = _plain(value)
    if not isinstance(plain, (int, float)):
        raise ConditionError(f"expected a number, not {_kind(plain)}")
    return plain


def _integer(value: Any) -> int:
    plain = _plain(value)
    if not isinstance(plain, int):
        raise ConditionError(f"expected an integer, not {'a fraction' if isinstance(plain, float) else _kind(plain)}")
    return plain


def _truth(value: Any) -> bool:
    return bool(_plain(value))


def _negation(value: Any) -> bool:
    return not _plain(value)


def _bounded(value: int | float) -> int | float:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ConditionError(f"an integer of more than {MAX_BITS} bits")
    return value


def _add(left: Any, right: Any) -> Any:
    left, right = _plain(left), _plain(right)
    if isinstance(left, (str, bytes)) and isinstance(right, (str, bytes)) and _kind(left) == _kind(right):
        if len(left) + len(right) > MAX_BYTES:
            raise ConditionError(f"a result of more than {MAX_BYTES} bytes")
        return operator.add(left, right)
    return _bounded(_real(left) + _real(right))


def _subtract(left: Any, right: Any) -> int | float:
    return _bounded(_real(left) - _real(right))


def _multiply(left: Any, right: Any) -> int | float:
    first, second = _real(left), _real(right)
    if isinstance(first, int) and isinstance(second, int) and first.bit_length() + second.bit_length() > MAX_BITS + 1:
        raise ConditionError(f"an integer of more than {MAX_BITS} bits")
    return _bounded(first * second)


def _divide(left: Any, right: Any) -> int | float:
    first, second = _real(left), _real(right)
    if second == 0:
        raise ConditionError("division by zero")
    if isinstance(first, int) and isinstance(second, int):
        size = abs(first) // abs(second)
        return size if (first < 0) == (second < 0) else -size
    return first / second


def _remainder(left: Any, right: Any) -> int | float:
    first, second = _real(left), _real(right)
    if second == 0:
        raise ConditionError("division by zero")
    if isinstance(first, int) and isinstance(second, int):
        size = abs(first) % abs(second)
        return -size if first < 0 else size
    return math.fmod(first, second)


def _shift(left: bool) -> Callable[[Any, Any], int]:
    def shift(value: Any, by: Any) -> int:
        number, distance = _integer(value), _integer(by)
        if not 0 <= distance <= MAX_SHIFT:
            raise ConditionError(f"a shift by {_short(distance)}; 0 to {MAX_SHIFT} are possible")
        return int(_bounded(number << distance)) if left else number >> distance

    return shift


def _short(number: int) -> str:
    return str(number) if number.bit_length() <= 64 else "a huge number"


def _bitwise(work: Callable[[int, int], int]) -> Callable[[Any, Any], int]:
    return lambda left, right: work(_integer(left), _integer(right))


def _pair(left: Any, right: Any) -> tuple[Any, Any]:
    """Two values made comparable."""
    left, right = _plain(left), _plain(right)
    if isinstance(left, str) and isinstance(right, bytes):
        return left.encode("utf-8", "surrogatepass"), right
    if isinstance(left, bytes) and isinstance(right, str):
        return left, right.encode("utf-8", "surrogatepass")
    if _kind(left) != _kind(right):
        raise ConditionError(f"{_kind(left)} cannot be compared with {_kind(right)}")
    return left, right


def _compared(work: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        first, second = _pair(left, right)
        if isinstance(first, (list, tuple)):
            raise ConditionError("lists cannot be compared")
        return work(first, second)

    return compare


def _contains(item: Any, whole: Any) -> bool:
    found = _plain(whole)
    if isinstance(found, (list, tuple)):
        return any(_same(item, one) for one in found)
    if not isinstance(found, (str, bytes)):
        return _same(item, found)
    part = _plain(item)
    if isinstance(found, bytes) and isinstance(part, int):
        return part in found if 0 <= part < 256 else False
    first, second = _pair(part, found)
    return first in second


def _same(left: Any, right: Any) -> bool:
    """Equality for lists, whose items may be of any kind."""
    left, right = _plain(left), _plain(right)
    if isinstance(left, (str, bytes)) != isinstance(right, (str, bytes)) or isinstance(left, (list, tuple)):
        return False
    if isinstance(right, (list, tuple)):
        return False
    first, second = _pair(left, right)
    return bool(first == second)


_PREFIXES: Final[dict[str, Callable[[Any], Any]]] = {
    "-": lambda value: -_real(value),
    "+": lambda value: +_real(value),
    "~": lambda value: ~_integer(value),
    "!": _negation,
    "*": lambda value: _deref(value),
}
_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": _compared(operator.eq),
    "!=": _compared(operator.ne),
    "<": _compared(operator.lt),
    "<=": _compared(operator.le),
    ">": _compared(operator.gt),
    ">=": _compared(operator.ge),
    "|": _bitwise(operator.or_),
    "^": _bitwise(operator.xor),
    "&": _bitwise(operator.and_),
    "<<": _shift(True),
    ">>": _shift(False),
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _remainder,
}


# --- parts of values


def _deref(value: Any) -> Any:
    if not isinstance(value, Structured):
        raise ConditionError("only a pointer of the source can be followed; memory is read with u32[address]")
    return value.deref()


def _member(name: str, through_pointer: bool) -> Callable[[Any], Any]:
    def member(value: Any) -> Any:
        owner = _deref(value) if through_pointer else value
        if not isinstance(owner, Structured):
            raise ConditionError(f"there is no member {name!r} in {_kind(owner)}")
        try:
            return owner.member(name)
        except LookupError:
            raise ConditionError(f"there is no member {name!r}") from None

    return member


def _indexed(value: Any, index: Any) -> Any:
    at = _integer(index)
    if isinstance(value, (list, tuple, bytes, str)):
        if not 0 <= at < len(value):
            raise ConditionError(f"there is no item {_short(at)}, only {len(value)}")
        return value[at]
    if not isinstance(value, Structured):
        raise ConditionError("a number has no items")
    return value.index(at)


def _local(stack: list[Any], scope: Scope) -> None:
    index = _integer(stack.pop())
    if not 0 <= index < 1 << 32:
        raise ConditionError(f"there is no local {_short(index)}")
    try:
        stack.append(scope.local(index))
    except LookupError:
        raise ConditionError(f"there is no local {index}") from None


def _global(stack: list[Any], scope: Scope) -> None:
    index = _integer(stack.pop())
    if not 0 <= index < 1 << 32:
        raise ConditionError(f"there is no global {_short(index)}")
    try:
        stack.append(scope.global_(index))
    except LookupError:
        raise ConditionError(f"there is no global {index}") from None


def _event_field(field: str) -> _Run:
    def run(stack: list[Any], scope: Scope) -> None:
        event = scope.event()
        if event is None:
            raise ConditionError("there is no event here")
        value = getattr(event, field, None)
        if value is None:
            raise ConditionError(f"the event has no {field}")
        stack.append(value)

    return run


def _memory(scope: Scope, address: int, size: int) -> bytes:
    problem = f"memory does not reach from {_short(address)} over {size} bytes"
    if not 0 <= address < 1 << 64:
        raise ConditionError(problem)
    try:
        found = scope.memory(address, size)
    except (LookupError, ValueError):
        raise ConditionError(problem) from None
    if len(found) != size:
        raise ConditionError(problem)
    return bytes(found)


def _read_number(shape: str) -> _Run:
    def run(stack: list[Any], scope: Scope) -> None:
        (value,) = struct.unpack(shape, _memory(scope, _integer(stack.pop()), struct.calcsize(shape)))
        stack.append(value)

    return run


def _read_bytes(stack: list[Any], scope: Scope) -> None:
    size = _integer(stack.pop())
    if not 0 <= size <= MAX_BYTES:
        raise ConditionError(f"a read of {_short(size)} bytes; 0 to {MAX_BYTES} are possible")
    stack.append(_memory(scope, _integer(stack.pop()), size))


def _read_text(stack: list[Any], scope: Scope) -> None:
    """A string that ends in a zero, which may be the last byte of memory."""
    start = address = _integer(stack.pop())
    found = bytearray()
    size = 256
    while len(found) <= MAX_STRING:
        try:
            part = _memory(scope, address, size)
        except ConditionError:
            if size == 1:
                raise
            size = size // 2
            continue
        text, zero, _ = part.partition(b"\0")
        found += text
        if zero:
            if len(found) > MAX_STRING:
                break
            stack.append(found.decode("utf-8", "replace"))
            return
        address += size
    raise ConditionError(f"no text of up to {MAX_STRING} bytes at {_short(start)}")


# --- functions


def _signed(value: Any, bits: Any) -> int:
    number, width = _integer(value), _integer(bits)
    if not 1 <= width <= MAX_SHIFT:
        raise ConditionError(f"an integer of {_short(width)} bits; 1 to {MAX_SHIFT} are possible")
    number &= (1 << width) - 1
    return number - (1 << width) if number >> (width - 1) else number


def _reinterpreted(shape: str, size: int) -> Callable[[Any], float]:
    def reinterpret(value: Any) -> float:
        plain = _real(value)
        if isinstance(plain, float):
            return plain
        if not -(1 << (8 * size - 1)) <= plain < 1 << (8 * size):
            raise ConditionError(f"more than the {8 * size} bits of a float")
        (number,) = struct.unpack(shape, (plain & ((1 << (8 * size)) - 1)).to_bytes(size, "little"))
        return float(number)

    return reinterpret


def _length(value: Any) -> int:
    plain = value if isinstance(value, (list, tuple)) else _plain(value)
    if isinstance(plain, (int, float)):
        raise ConditionError("a number has no length")
    return len(plain)


_FUNCTIONS: Final[dict[str, tuple[int, _Run]]] = {
    "signed": (2, _binary(_signed)),
    "f32": (1, _unary(_reinterpreted("<f", 4))),
    "f64": (1, _unary(_reinterpreted("<d", 8))),
    "len": (1, _unary(_length)),
}
"""How many arguments each takes, and what it does."""
