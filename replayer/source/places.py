"""Where values lie: in memory, in a Wasm local, nowhere; and the expressions with which debug information says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from replayer.source.bits import Cursor, Damaged
from replayer.source.units import Die, Unit

MAX_STEPS: Final = 10_000
MAX_STACK: Final = 1_000
MAX_NESTING: Final = 8
"""How many variables one expression may need the values of, each through the next."""

Status = Literal["ok", "optimised out", "unavailable"]


class Frame(Protocol):
    """The machine at one moment in one function, as the caller knows it. None everywhere: not known."""

    @property
    def pc(self) -> int: ...

    def local(self, index: int) -> int | None:
        """The bits of a Wasm local, as an unsigned number."""

    def operand(self, index: int) -> int | None:
        """The bits of an entry of the operand stack, counted from the bottom."""

    def global_(self, index: int) -> int | None:
        """The bits of a Wasm global."""

    def memory(self, address: int, length: int) -> bytes | None:
        """Bytes of memory 0; None if any of them lies outside."""


class Missing(Exception):
    """A value that cannot be had. Stays inside this package."""

    def __init__(self, status: Status, reason: str = "") -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason


class Place(Protocol):
    """Where the bytes of a value are."""

    @property
    def address(self) -> int | None:
        """In memory 0; None if the value is not in memory."""

    def read(self, offset: int, length: int) -> bytes:
        """Raises Missing."""


class InMemory:
    """A value in memory 0."""

    def __init__(self, frame: Frame, address: int) -> None:
        self.frame = frame
        self.address: int | None = address

    def read(self, offset: int, length: int) -> bytes:
        assert self.address is not None
        start = self.address + offset
        if length == 0:
            return b""
        found = self.frame.memory(start, length) if start >= 0 and length > 0 else None
        if found is None or len(found) != length:
            raise Missing("unavailable", f"memory at {start:#x} is not there")
        return found


class Bytes:
    """A value that has no address: a constant, or what a local or an expression holds."""

    address: int | None = None

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > len(self.data):
            raise Missing("unavailable", "the debug information gives fewer bytes than the type has")
        return self.data[offset : offset + length]


class Nowhere:
    """What there is no place for."""

    address: int | None = None

    def __init__(self, missing: Missing) -> None:
        self.missing = missing

    def read(self, offset: int, length: int) -> bytes:
        raise Missing(self.missing.status, self.missing.reason)


class Pieces:
    """A value that is spread over several places, some of which may be nowhere."""

    address: int | None = None

    def __init__(self, pieces: Sequence[tuple[int, Place]]) -> None:
        self.pieces = pieces

    def read(self, offset: int, length: int) -> bytes:
        result, start = bytearray(), 0
        for size, place in self.pieces:
            low, high = max(offset, start), min(offset + length, start + size)
            if low < high:
                result += place.read(low - start, high - low)
            start += size
        if len(result) != length:
            raise Missing("optimised out", "not all of it has a place")
        return bytes(result)


Entry = tuple[int, int]
"""A value on the stack of an expression, and how many bits it has (32, 64 or 128)."""


class Evaluator:
    """Evaluates expressions of one unit in one frame."""

    def __init__(self, frame: Frame, unit: Unit, function: Die | None, nesting: int = 0) -> None:
        self.frame = frame
        self.unit = unit
        self.function = function
        self.nesting = nesting
        self.word = 8 * unit.address_size

    def place(self, expression: bytes) -> Place:
        """Where the value is that `expression` describes. Raises Missing."""
        try:
            return self._place(expression)
        except Damaged as error:
            raise Missing("unavailable", f"damaged debug information: {error}") from None

    def of(self, die: Die, size: int | None) -> Place:
        """Where the variable or parameter is that `die` describes. Raises Missing."""
        if self.nesting > MAX_NESTING:
            raise Missing("unavailable", "the debug information goes in circles")
        constant = die.with_attribute("DW_AT_const_value")
        located = die if die.has("DW_AT_location") else die.with_attribute("DW_AT_location")
        if located is not None:
            try:
                expression = located.unit.expression(located, "DW_AT_location", self.frame.pc)
            except Damaged as error:
                raise Missing("unavailable", f"damaged debug information: {error}") from None
            if expression:
                return Evaluator(self.frame, located.unit, self.function, self.nesting).place(expression)
        if constant is not None and (located is None or die.has("DW_AT_const_value")):
            return _constant(constant, size)
        raise Missing("optimised out")

    def _place(self, expression: bytes) -> Place:
        cursor = Cursor(expression)
        pieces: list[tuple[int, Place]] = []
        while True:
            place, piece = self._simple(cursor)
            if piece is not None:
                pieces.append((piece, place))
            if not cursor.remaining:
                return Pieces(pieces) if pieces else place

    def _simple(self, cursor: Cursor) -> tuple[Place, int | None]:
        """One simple location, up to a DW_OP_piece or the end; the size of the piece, if it is one."""
        stack: list[Entry] = []
        explicit: Place | None = None
        is_value = False
        missing: Missing | None = None
        for _ in range(MAX_STEPS):
            if not cursor.remaining:
                break
            opcode = cursor.unsigned(1)
            if opcode == 0x93:  # piece
                length = cursor.uleb()
                if explicit is None and not stack:
                    return Nowhere(Missing("optimised out")), length
                return explicit or self._finish(stack, is_value, missing), length
            if opcode == 0x9D:  # bit_piece
                raise Missing("unavailable", "pieces of bits are not supported")
            if opcode == 0x9F:
                is_value = True
            elif opcode == 0x9E:
                explicit = Bytes(cursor.take(cursor.uleb()))
            else:
                try:
                    self._step(opcode, cursor, stack)
                except Missing as error:
                    if opcode not in _READS:
                        raise
                    missing = missing or error  # the other pieces of the value may be there
                    stack.append((0, self.word))
        else:
            raise Damaged("an expression does not end")
        if explicit is None and not stack:
            raise Missing("optimised out")
        return explicit or self._finish(stack, is_value, missing), None

    def _finish(self, stack: list[Entry], is_value: bool, missing: Missing | None) -> Place:
        if missing is not None:
            return Nowhere(missing)
        value, bits = stack[-1]
        if is_value:
            return Bytes(value.to_bytes(16, "little")[: max(8, bits // 8)])
        address = value & ((1 << self.word) - 1)
        if address == 0 or address >= (1 << self.word) - 2:
            return Nowhere(Missing("optimised out", "the linker left it out"))
        return InMemory(self.frame, address)

    def number(self, expression: bytes, initial: Sequence[int] = ()) -> int:
        """The number an expression leaves on its stack. Raises Missing."""
        try:
            cursor, stack = Cursor(expression), [(value, self.word) for value in initial]
            for _ in range(MAX_STEPS):
                if not cursor.remaining:
                    break
                opcode = cursor.unsigned(1)
                if opcode != 0x9F:
                    self._step(opcode, cursor, stack)
            else:
                raise Damaged("an expression does not end")
            if not stack:
                raise Missing("unavailable", "an expression without a result")
            return stack[-1][0]
        except Damaged as error:
            raise Missing("unavailable", f"damaged debug information: {error}") from None

    # --- single operations

    def _push(self, stack: list[Entry], value: int, bits: int) -> None:
        if len(stack) >= MAX_STACK:
            raise Damaged("an expression needs too much stack")
        stack.append((value & ((1 << bits) - 1), bits))

    def _pop(self, stack: list[Entry]) -> Entry:
        if not stack:
            raise Damaged("an expression takes from an empty stack")
        return stack.pop()

    def _push_constant(self, stack: list[Entry], value: int) -> None:
        fits = -(1 << (self.word - 1)) <= value < 1 << self.word
        self._push(stack, value, self.word if fits else 64)

    def _step(self, opcode: int, cursor: Cursor, stack: list[Entry]) -> None:
        if 0x30 <= opcode <= 0x4F:
            self._push(stack, opcode - 0x30, self.word)
        elif opcode in _CONSTANTS:
            size, signed = _CONSTANTS[opcode]
            self._push_constant(stack, cursor.signed(size) if signed else cursor.unsigned(size))
        elif opcode in _BINARY:
            right, left = self._pop(stack), self._pop(stack)
            self._push(stack, *_binary(_BINARY[opcode], left, right))
        elif opcode == 0xED:
            self._wasm(cursor, stack)
        elif opcode in (0x12, 0x13, 0x14, 0x15, 0x16, 0x17):
            _shuffle(opcode, cursor, stack)
        elif opcode in (0x19, 0x1F, 0x20):
            value, bits = self._pop(stack)
            number = _signed(value, bits)
            self._push(stack, abs(number) if opcode == 0x19 else -number if opcode == 0x1F else ~number, bits)
        elif opcode in (0x28, 0x2F):
            target = cursor.signed(2)
            if opcode == 0x2F or self._pop(stack)[0]:
                cursor.position += target
                if not 0 <= cursor.position <= cursor.end:
                    raise Damaged("an expression jumps out of itself")
        elif opcode != 0x96:  # nop
            self._rare(opcode, cursor, stack)

    def _rare(self, opcode: int, cursor: Cursor, stack: list[Entry]) -> None:
        if opcode == 0x03:
            self._push(stack, cursor.unsigned(self.unit.address_size), self.word)
        elif opcode in (0xA1, 0xFB, 0xA2, 0xFC):
            self._push(stack, self.unit.address(cursor.uleb()), self.word)
        elif opcode == 0x10:
            self._push_constant(stack, cursor.uleb())
        elif opcode == 0x11:
            self._push_constant(stack, cursor.sleb())
        elif opcode == 0x23:
            value, bits = self._pop(stack)
            self._push(stack, value + cursor.uleb(), bits)
        elif opcode == 0x91:
            offset = cursor.sleb()
            self._push(stack, self.frame_base() + offset, self.word)
        elif opcode in (0x06, 0x94, 0xA6):
            size = self.unit.address_size if opcode == 0x06 else cursor.unsigned(1)
            if opcode == 0xA6:
                cursor.uleb()
            if not 1 <= size <= 16:
                raise Damaged(f"a read of {size} bytes")
            found = InMemory(self.frame, self._pop(stack)[0] & ((1 << self.word) - 1)).read(0, size)
            self._push(stack, int.from_bytes(found, "little"), max(self.word, 8 * size))
        elif opcode in (0xA8, 0xF7, 0xA9, 0xF9):
            self._convert(cursor.uleb(), opcode in (0xA8, 0xF7), stack)
        elif opcode in (0xA4, 0xF4):
            cursor.uleb()
            data = cursor.take(cursor.unsigned(1))
            self._push(stack, int.from_bytes(data, "little"), max(self.word, 8 * len(data)))
        elif opcode in (0xA3, 0xF3):
            raise Missing("unavailable", "it needs a value from when the function was entered")
        else:
            raise Missing("unavailable", f"operation {opcode:#x} of debug information is not supported")

    def _wasm(self, cursor: Cursor, stack: list[Entry]) -> None:
        kind = cursor.unsigned(1)
        index = cursor.unsigned(4) if kind == 3 else cursor.uleb()
        reads = {0: self.frame.local, 1: self.frame.global_, 2: self.frame.operand, 3: self.frame.global_}
        if kind not in reads:
            raise Missing("unavailable", f"kind {kind} of Wasm location is not supported")
        value = reads[kind](index)
        if value is None:
            what = {0: "local", 1: "global", 2: "operand", 3: "global"}[kind]
            raise Missing("unavailable", f"Wasm {what} {index} is not known")
        bits = next(bits for bits in (32, 64, 128) if value < 1 << bits or bits == 128)
        self._push(stack, value, max(bits, self.word))

    def _convert(self, offset: int, converts: bool, stack: list[Entry]) -> None:
        value, _ = self._pop(stack)
        if offset == 0:
            self._push(stack, value, self.word)
            return
        type_die = self.unit.die(self.unit.offset + offset)
        size = type_die.number("DW_AT_byte_size") if type_die is not None else None
        encoding = type_die.number("DW_AT_encoding") if type_die is not None else None
        if size not in (1, 2, 4, 8, 16) or (converts and encoding == 4):
            raise Missing("unavailable", "a conversion that is not supported")
        # LLVM says how wide the value is, then how wide it shall be, both signed if the sign is to be kept.
        value &= (1 << 8 * size) - 1
        if encoding in (5, 6) and converts:
            value = _signed(value, 8 * size)
        self._push(stack, value, 128 if size == 16 else 64 if size == 8 or value < 0 else max(32, self.word))

    def frame_base(self) -> int:
        """What DW_OP_fbreg counts from. Raises Missing."""
        function = self.function
        if function is None or not function.has("DW_AT_frame_base"):
            raise Missing("unavailable", "the function has no frame base")
        if self.nesting > MAX_NESTING:
            raise Missing("unavailable", "the debug information goes in circles")
        expression = function.unit.expression(function, "DW_AT_frame_base", self.frame.pc)
        if not expression:
            raise Missing("unavailable", "the function has no frame base here")
        return Evaluator(self.frame, function.unit, function, self.nesting + 4).number(expression)


def left_out(die: Die) -> bool:
    """Whether a global variable is one that the linker left out: debug information keeps it, at no real address."""
    block = die.block("DW_AT_location")
    if not block or block[0] not in (0x03, 0xA1):
        return False
    try:
        cursor = Cursor(block, 1)
        unit = die.unit
        address = cursor.unsigned(unit.address_size) if block[0] == 0x03 else unit.address(cursor.uleb())
    except Damaged:
        return True
    return address == 0 or address >= (1 << 8 * unit.address_size) - 2


def _constant(die: Die, size: int | None) -> Place:
    block, number, text = die.block("DW_AT_const_value"), die.number("DW_AT_const_value"), die.text("DW_AT_const_value")
    if number is not None:
        return Bytes((number & ((1 << 128) - 1)).to_bytes(16, "little")[: max(8, size or 0)])
    if text is not None:
        return Bytes(text.encode("utf-8", "replace") + b"\0")
    if block is not None:
        return Bytes(block)
    raise Missing("unavailable", "a constant of a kind that is not supported")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def _binary(name: str, left: Entry, right: Entry) -> Entry:
    bits = max(left[1], right[1])
    a, b = _signed(*left), _signed(*right)
    match name:
        case "and":
            return left[0] & right[0], bits
        case "or":
            return left[0] | right[0], bits
        case "xor":
            return left[0] ^ right[0], bits
        case "plus":
            return a + b, bits
        case "minus":
            return a - b, bits
        case "mul":
            return a * b, bits
        case "shl":
            return left[0] << right[0] if right[0] < bits else 0, bits
        case "shr":
            return left[0] >> min(right[0], bits), bits
        case "shra":
            return a >> min(right[0], bits), bits
        case "div" | "mod":
            if b == 0:
                raise Missing("unavailable", "an expression divides by zero")
            if name == "mod":
                return left[0] % right[0], bits
            return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1), bits
    truth = {"eq": a == b, "ge": a >= b, "gt": a > b, "le": a <= b, "lt": a < b, "ne": a != b}
    return int(truth[name]), bits


def _shuffle(opcode: int, cursor: Cursor, stack: list[Entry]) -> None:
    depth = {0x12: 1, 0x13: 1, 0x14: 2, 0x15: cursor.unsigned(1) + 1 if opcode == 0x15 else 0, 0x16: 2, 0x17: 3}[opcode]
    if len(stack) < depth or len(stack) >= MAX_STACK:
        raise Damaged("an expression takes from an empty stack")
    if opcode in (0x12, 0x14, 0x15):
        stack.append(stack[-depth])
    elif opcode == 0x13:
        stack.pop()
    elif opcode == 0x16:
        stack[-2:] = [stack[-1], stack[-2]]
    else:
        stack[-3:] = [stack[-1], stack[-3], stack[-2]]


_READS: Final = frozenset((0x06, 0x91, 0x94, 0xED))
"""Operations that need the machine, and have taken their operands when it does not know."""
_CONSTANTS: Final = {
    0x08: (1, False), 0x09: (1, True), 0x0A: (2, False), 0x0B: (2, True),
    0x0C: (4, False), 0x0D: (4, True), 0x0E: (8, False), 0x0F: (8, True),
}  # fmt: skip
_BINARY: Final = {
    0x1A: "and", 0x1B: "div", 0x1C: "minus", 0x1D: "mod", 0x1E: "mul", 0x21: "or", 0x22: "plus", 0x24: "shl",
    0x25: "shr", 0x26: "shra", 0x27: "xor", 0x29: "eq", 0x2A: "ge", 0x2B: "gt", 0x2C: "le", 0x2D: "lt", 0x2E: "ne",
}  # fmt: skip
