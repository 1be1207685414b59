"""Names of functions as their authors wrote them, from the symbols that C++ and Rust compilers make of them.

`demangle` takes any text and never raises: what is no mangled name, or uses a corner of a scheme that is left
out here, comes back as it is. Covered are the Itanium C++ ABI without constraints, and Rust's two schemes
(legacy and v0, without structured constants). Rust's hashes are left out.

A mangled name can stand for a text exponentially longer than itself, and can nest as deep as it is long. Every
parse is therefore bounded in steps, depth and length; beyond the bounds the name comes back as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

MAX_SYMBOL: Final = 8_192
"""Longest symbol looked into, in characters."""
MAX_OUTPUT: Final = 8_192
"""Longest text, in characters; also of each part while it is put together."""
MAX_DEPTH: Final = 96
MAX_STEPS: Final = 20_000


class _Unsupported(Exception):
    """Not mangled after all, or in a way that is not covered here."""


def demangle(symbol: str, *, signature: bool = True) -> str:
    """The name behind a mangled symbol; the symbol itself if it is none.

    Without `signature` the parameters and the return type of a C++ function are left out.
    """
    whole, short = _both(symbol)
    return whole if signature else short


@lru_cache(maxsize=4_096)
def _both(symbol: str) -> tuple[str, str]:
    """The name with its signature and without."""
    if len(symbol) > MAX_SYMBOL or not symbol.startswith(("_R", "_Z")) or not symbol.isascii():
        return symbol, symbol
    try:
        if symbol.startswith("_Z"):
            legacy = _rust_legacy(symbol) if symbol.startswith("_ZN") else None
            return _Itanium(symbol).symbol() if legacy is None else (legacy, legacy)
        name = _RustV0(symbol[2:]).symbol()
    except (_Unsupported, RecursionError, ValueError, OverflowError):
        return symbol, symbol
    return name, name


class _Cursor:
    """A text read from left to right within the bounds."""

    def __init__(self, text: str, position: int = 0) -> None:
        self.text = text
        self.at = position
        self.steps = 0
        self.depth = 0

    def peek(self, size: int = 1) -> str:
        return self.text[self.at : self.at + size]

    def eat(self, expected: str) -> bool:
        if self.text.startswith(expected, self.at):
            self.at += len(expected)
            return True
        return False

    def need(self, expected: str) -> None:
        if not self.eat(expected):
            raise _Unsupported

    def next(self, size: int = 1) -> str:
        found = self.peek(size)
        if len(found) < size:
            raise _Unsupported
        self.at += size
        return found

    def digits(self) -> str:
        start = self.at
        while self.peek().isdigit():
            self.at += 1
        return self.text[start : self.at]

    def number(self) -> int:
        digits = self.digits()
        if not 0 < len(digits) <= 9:
            raise _Unsupported
        return int(digits)

    def enter(self) -> None:
        self.steps += 1
        self.depth += 1
        if self.steps > MAX_STEPS or self.depth > MAX_DEPTH:
            raise _Unsupported

    def leave(self) -> None:
        self.depth -= 1


def _bounded(text: str) -> str:
    if len(text) > MAX_OUTPUT:
        raise _Unsupported
    return text


# --- Rust, legacy

_LEGACY_ESCAPES: Final = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_legacy_escape = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$|\.\.").sub
_legacy_hash = re.compile(r"h[0-9a-f]{16}").fullmatch

_legacy_shape = re.compile(r"17h[0-9a-f]{16}E").search


def _legacy_letter(found: re.Match[str]) -> str:
    code = found[1]
    if code is None:
        return "::"
    if code[0] != "u":
        return _LEGACY_ESCAPES[code]
    letter = chr(int(code[1:], 16))
    return letter if letter.isprintable() else found[0]


def _rust_legacy(symbol: str) -> str | None:
    """None: not Rust, or not this scheme; C++ writes nested names alike, but without the hash."""
    cursor = _Cursor(symbol, 3)
    parts = []
    if not _legacy_shape(symbol):
        return None
    while not cursor.eat("E"):
        if not cursor.peek().isdigit():
            return None
        parts.append(cursor.next(cursor.number()))
    suffix = symbol[cursor.at :]
    if len(parts) < 2 or not _legacy_hash(parts[-1]) or (suffix and suffix[0] != "."):
        return None
    plain = [_legacy_escape(_legacy_letter, part[1:] if part.startswith("_$") else part) for part in parts[:-1]]
    return _bounded("::".join(plain) + _suffix(suffix))


def _suffix(text: str) -> str:
    """What compilers append to the symbol of a copy; LLVM's own numbering says nothing."""
    kept = re.sub(r"\.llvm\.[0-9A-F]+", "", text)
    return f" ({kept})" if kept else ""


# --- Rust, v0

_RUST_BASIC: Final = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_RUST_INTEGERS: Final = frozenset("hmtyojaslxni")


class _RustV0(_Cursor):
    """One symbol of RFC 2603; positions count from behind `_R`, as its back references do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.bound = 0
        """How many lifetimes the binders around have introduced."""

    def symbol(self) -> str:
        if self.peek().isdigit():  # an encoding version: none is defined yet
            raise _Unsupported
        name = self.path(True)
        if self.peek() and self.peek() in "CMXYNIB":
            self.path(False)  # the crate that asked for this instance
        if self.peek() not in ("", "."):
            raise _Unsupported
        return name + _suffix(self.text[self.at :])

    def base62(self) -> int:
        if self.eat("_"):
            return 0
        value = 0
        while not self.eat("_"):
            digit = self.next()
            if not digit.isalnum() or value >> 64:
                raise _Unsupported
            value = value * 62 + int(digit, 36) + (26 if digit.isupper() else 0)
        return value + 1

    def optional(self, tag: str) -> int:
        return self.base62() + 1 if self.eat(tag) else 0

    def identifier(self) -> str:
        encoded = self.eat("u")
        size = 0 if self.eat("0") else self.number()  # no leading zeros: digits may follow an empty name
        self.eat("_")
        text = self.next(size)
        if not encoded:
            return text
        basic, _, extra = text.rpartition("_")
        decoded = (f"{basic}-{extra}" if basic else extra).encode().decode("punycode")
        if not decoded.isprintable():
            raise _Unsupported
        return decoded

    def back(self, read: Callable[[], str]) -> str:
        start = self.at - 1
        target = self.base62()
        if target >= start:
            raise _Unsupported
        behind = self.at
        self.at = target
        text = read()
        self.at = behind
        return text

    def path(self, in_value: bool) -> str:
        self.enter()
        tag = self.next()
        if tag == "C":
            self.optional("s")
            text = self.identifier()
        elif tag == "N":
            text = self.nested(in_value)
        elif tag in "MX":
            self.optional("s")
            self.path(False)
            text = f"<{self.type()}" + (f" as {self.path(False)}>" if tag == "X" else ">")
        elif tag == "Y":
            text = f"<{self.type()} as {self.path(False)}>"
        elif tag == "I":
            text = self.path(in_value) + ("::<" if in_value else "<") + self.arguments() + ">"
        elif tag == "B":
            text = self.back(lambda: self.path(in_value))
        else:
            raise _Unsupported
        self.leave()
        return _bounded(text)

    def nested(self, in_value: bool) -> str:
        namespace = self.next()
        text = self.path(in_value)
        number = self.optional("s")
        name = self.identifier()
        if namespace.isupper():
            kind = {"C": "closure", "S": "shim"}.get(namespace, namespace)
            return f"{text}::{{{kind}{':' if name else ''}{name}#{number}}}"
        return f"{text}::{name}" if name else text

    def arguments(self) -> str:
        found = []
        while not self.eat("E"):
            if self.eat("L"):
                found.append(self.lifetime(self.base62()))
            else:
                found.append(self.constant() if self.eat("K") else self.type())
        return ", ".join(found)

    def lifetime(self, index: int) -> str:
        if index == 0:
            return "'_"
        depth = self.bound - index
        if depth < 0:
            raise _Unsupported
        return f"'{chr(ord('a') + depth)}" if depth < 26 else f"'_{depth}"

    def binder(self) -> tuple[int, str]:
        """How many lifetimes a binder introduces, and its text; the caller takes them back."""
        count = self.optional("G")
        if count > 64:
            raise _Unsupported
        names = []
        for _ in range(count):
            self.bound += 1
            names.append(self.lifetime(1))
        return count, f"for<{', '.join(names)}> " if names else ""

    def type(self) -> str:
        self.enter()
        tag = self.peek()
        if tag in _RUST_BASIC:
            self.at += 1
            text = _RUST_BASIC[tag]
        elif tag and tag in "CMXYNI":
            text = self.path(False)
        else:
            text = self.compound(self.next())
        self.leave()
        return _bounded(text)

    def compound(self, tag: str) -> str:
        if tag in "RQ":
            index = self.base62() if self.eat("L") else 0
            lifetime = self.lifetime(index) + " " if index else ""
            return f"&{lifetime}{'mut ' if tag == 'Q' else ''}{self.type()}"
        if tag in "PO":
            return f"*{'const' if tag == 'P' else 'mut'} {self.type()}"
        if tag == "A":
            return f"[{self.type()}; {self.constant()}]"
        if tag == "S":
            return f"[{self.type()}]"
        if tag == "T":
            items = []
            while not self.eat("E"):
                items.append(self.type())
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if tag == "F":
            return self.function()
        if tag == "D":
            return self.dynamic()
        if tag == "B":
            return self.back(self.type)
        raise _Unsupported

    def function(self) -> str:
        count, text = self.binder()
        if self.eat("U"):
            text += "unsafe "
        if self.eat("K"):
            text += f'extern "{"C" if self.eat("C") else self.identifier().replace("_", "-")}" '
        arguments = []
        while not self.eat("E"):
            arguments.append(self.type())
        text += f"fn({', '.join(arguments)})"
        if not self.eat("u"):
            text += f" -> {self.type()}"
        self.bound -= count
        return text

    def dynamic(self) -> str:
        count, text = self.binder()
        traits = []
        while not self.eat("E"):
            trait, is_open = self.open_path()
            while self.eat("p"):
                name = self.identifier()
                trait += f"{', ' if is_open else '<'}{name} = {self.type()}"
                is_open = True
            traits.append(trait + (">" if is_open else ""))
        self.bound -= count
        self.need("L")
        index = self.base62()
        return f"dyn {text}{' + '.join(traits)}" + (f" + {self.lifetime(index)}" if index else "")

    def open_path(self) -> tuple[str, bool]:
        """A trait's path whose list of arguments is left open for associated types, and whether there is one."""
        if self.eat("B"):
            is_open = False

            def read() -> str:
                nonlocal is_open
                text, is_open = self.open_path()
                return text

            self.enter()
            text = self.back(read)
            self.leave()
            return text, is_open
        if self.eat("I"):
            return f"{self.path(False)}<{self.arguments()}", True
        return self.path(False), False

    def constant(self) -> str:
        self.enter()
        tag = self.next()
        if tag == "B":
            text = self.back(self.constant)
        elif tag == "p":
            text = "_"
        elif tag in _RUST_INTEGERS or tag in "bc":
            negative = self.eat("n")
            value = self.hexadecimal()
            if tag == "b":
                text = {0: "false", 1: "true"}.get(value, "")
            elif tag == "c":
                text = ascii(chr(value)) if value < 0x110000 else ""
            else:
                text = f"{'-' if negative else ''}{value}"
            if not text:
                raise _Unsupported
        else:
            raise _Unsupported
        self.leave()
        return text

    def hexadecimal(self) -> int:
        end = self.text.find("_", self.at)
        digits = self.text[self.at : end] if end >= 0 else "?"
        if len(digits) > 32 or not re.fullmatch("[0-9a-f]*", digits):
            raise _Unsupported
        self.at = end + 1
        return int(digits or "0", 16)


# --- Itanium C++

_BUILTINS: Final = {
    "v": "void", "w": "wchar_t", "b": "bool", "c": "char", "a": "signed char", "h": "unsigned char", "s": "short",
    "t": "unsigned short", "i": "int", "j": "unsigned int", "l": "long", "m": "unsigned long", "x": "long long",
    "y": "unsigned long long", "n": "__int128", "o": "unsigned __int128", "f": "float", "d": "double",
    "e": "long double", "g": "__float128", "z": "...",
    "Dd": "decimal64", "De": "decimal128", "Df": "decimal32", "Dh": "half", "Di": "char32_t", "Ds": "char16_t",
    "Du": "char8_t", "Da": "auto", "Dc": "decltype(auto)", "Dn": "std::nullptr_t",
}  # fmt: skip
_LITERAL_SUFFIXES: Final = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}
_ABBREVIATIONS: Final = {
    "a": ("std::allocator", "allocator", "std::allocator"),
    "b": ("std::basic_string", "basic_string", "std::basic_string"),
    "s": ("std::string", "basic_string", "std::basic_string<char, std::char_traits<char>, std::allocator<char>>"),
    "i": ("std::istream", "basic_istream", "std::basic_istream<char, std::char_traits<char>>"),
    "o": ("std::ostream", "basic_ostream", "std::basic_ostream<char, std::char_traits<char>>"),
    "d": ("std::iostream", "basic_iostream", "std::basic_iostream<char, std::char_traits<char>>"),
}
"""Text, name of the constructor, and the text where a constructor or destructor follows."""
_OPERATORS: Final = {
    "nw": " new", "na": " new[]", "dl": " delete", "da": " delete[]", "aw": " co_await",
    "ps": "+", "ng": "-", "ad": "&", "de": "*", "co": "~", "pl": "+", "mi": "-", "ml": "*", "dv": "/", "rm": "%",
    "an": "&", "or": "|", "eo": "^", "aS": "=", "pL": "+=", "mI": "-=", "mL": "*=", "dV": "/=", "rM": "%=",
    "aN": "&=", "oR": "|=", "eO": "^=", "ls": "<<", "rs": ">>", "lS": "<<=", "rS": ">>=", "eq": "==", "ne": "!=",
    "lt": "<", "gt": ">", "le": "<=", "ge": ">=", "ss": "<=>", "nt": "!", "aa": "&&", "oo": "||", "pp": "++",
    "mm": "--", "cm": ",", "pm": "->*", "pt": "->", "cl": "()", "ix": "[]", "qu": "?",
}  # fmt: skip
_UNARY: Final = frozenset(("ps", "ng", "ad", "de", "co", "nt"))
_BINARY: Final = frozenset(_OPERATORS) - _UNARY - frozenset(("nw", "na", "dl", "da", "aw", "pp", "mm", "pt", "cl", "ix", "qu"))
_SPECIAL: Final = {"TV": "vtable for ", "TT": "VTT for ", "TI": "typeinfo for ", "TS": "typeinfo name for "}
_SPECIAL_NAMES: Final = {
    "GV": "guard variable for ", "TW": "thread-local wrapper routine for ",
    "TH": "thread-local initialization routine for ",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Node:
    """A type, name or argument. A declarator goes between `left` and `right`: `void (*` and `)(int)`."""

    left: str
    right: str = ""
    kind: str = ""
    """"function" and "array" need parentheses around a declarator; "pack" stands for its items one by one, in
    whatever is built of it, until an expansion makes it "arguments", which are several arguments in one."""
    items: tuple[_Node, ...] = ()
    base: str = ""
    """The last identifier without template arguments: how constructors are called."""
    reference: str = ""
    """"&" or "&&": references to references collapse."""
    expanded: str = ""
    """The text where a constructor or destructor follows; empty: the same."""

    def __str__(self) -> str:
        if self.kind in ("pack", "arguments"):
            return _bounded(", ".join(text for item in self.items if (text := str(item))))
        return self.left + self.right


def _node(left: str, right: str = "", kind: str = "", base: str = "", reference: str = "") -> _Node:
    _bounded(left)
    _bounded(right)
    return _Node(left, right, kind, (), base, reference)


def _lift(build: Callable[..., _Node], *parts: _Node) -> _Node:
    """`build(*parts)`; for each of its items in turn, where a part is a pack."""
    sizes = {len(part.items) for part in parts if part.kind == "pack"}
    if not sizes:
        return build(*parts)
    items = tuple(_lift(build, *(part.items[at] if part.kind == "pack" else part for part in parts)) for at in range(min(sizes)))
    if sum(len(item.left) + len(item.right) for item in items) > MAX_OUTPUT:
        raise _Unsupported
    return _Node("", "", "pack", items)


def _pointer(mark: str) -> Callable[[_Node], _Node]:
    def build(inner: _Node) -> _Node:
        sign = mark
        left, right = inner.left, inner.right
        if mark[0] == "&" and inner.reference:
            sign = "&" if "&" in (mark, inner.reference) else "&&"
            left = left.removesuffix(inner.reference)
        if inner.kind == "function":
            return _node(f"{left}({sign}", f"){right}", reference=sign if mark[0] == "&" else "")
        if inner.kind == "array":
            return _node(f"{left} ({sign}", f"){right}", reference=sign if mark[0] == "&" else "")
        return _node(f"{left}{sign}", right, reference=sign if mark[0] == "&" else "")

    return build


def _qualified(words: str) -> Callable[[_Node], _Node]:
    def build(inner: _Node) -> _Node:
        if inner.kind == "function":
            return _node(inner.left, inner.right + words, "function")
        return _node(inner.left + words, inner.right, inner.kind, inner.base)

    return build


def _spaced(template: str) -> str:
    """Text in front of `<`: an operator's own `<` keeps its distance."""
    return template + " " if template.endswith("<") else template


class _Itanium(_Cursor):
    def __init__(self, symbol: str) -> None:
        super().__init__(symbol, 2)
        self.substitutions: list[_Node] = []
        self.parameters: list[_Node] = []
        self.ends_with_arguments = False
        self.is_constructor = False
        """Or destructor or conversion: none of them has a return type."""
        self.qualifiers = ""
        """Behind the parameters: const, &."""
        self.in_lambda = 0
        self.bare_name = ""
        """Of the encoding read last, without its signature; the outermost ends last."""

    def symbol(self) -> tuple[str, str]:
        """With signature, and without."""
        text = self.encoding()
        if self.peek() not in ("", "."):
            raise _Unsupported
        suffix = _suffix(self.text[self.at :])
        return text + suffix, (self.bare_name or text) + suffix

    def encoding(self) -> str:
        self.enter()
        saved = self.parameters, self.ends_with_arguments, self.is_constructor, self.qualifiers
        self.parameters, self.qualifiers = list(self.parameters), ""
        if self.peek() in ("T", "G"):
            text = self.special()
            self.bare_name = ""
        else:
            text = self.function()
        self.parameters, self.ends_with_arguments, self.is_constructor, self.qualifiers = saved
        self.leave()
        return _bounded(text)

    def function(self) -> str:
        self.ends_with_arguments = self.is_constructor = False
        self.qualifiers = ""
        name = str(self.name(True))
        qualifiers = self.qualifiers
        text = name
        if self.peek() not in ("", "E", ".", "_"):
            has_return = self.ends_with_arguments and not self.is_constructor
            returned = self.type() if has_return else _Node("")
            space = " " if has_return and returned.kind != "function" and not returned.right else ""
            text = f"{returned.left}{space}{name}({self.parameter_list()}){qualifiers}{returned.right}"
        self.bare_name = name
        return text

    def parameter_list(self) -> str:
        """Types up to the end of the encoding."""
        found = []
        while self.peek() not in ("", "E", ".", "_"):
            found.append(self.type())
        if len(found) == 1 and str(found[0]) == "void":
            return ""
        return _bounded(", ".join(text for one in found if (text := str(one))))

    def special(self) -> str:
        tag = self.next(2)
        if tag in _SPECIAL:
            return _SPECIAL[tag] + str(self.type())
        if tag in _SPECIAL_NAMES:
            return _SPECIAL_NAMES[tag] + str(self.name(True))
        if tag in ("Th", "Tv"):
            self.at -= 1
            self.call_offset()
            return ("non-virtual thunk to " if tag == "Th" else "virtual thunk to ") + self.encoding()
        if tag == "Tc":
            self.call_offset()
            self.call_offset()
            return "covariant return thunk to " + self.encoding()
        if tag == "TC":
            derived = str(self.type())
            self.number()
            self.need("_")
            return f"construction vtable for {self.type()}-in-{derived}"
        if tag == "GR":
            name = str(self.name(True))
            self.digits()
            self.eat("_")
            return f"reference temporary for {name}"
        raise _Unsupported

    def call_offset(self) -> None:
        for _ in range(1 if self.next() == "h" else 2):
            self.eat("n")
            self.number()
            self.need("_")

    # names

    def name(self, tagged: bool) -> _Node:
        """`tagged`: of an encoding, so that its template arguments are what T_ means from here on."""
        self.enter()
        if self.peek() == "N":
            found = self.nested_name(tagged)
        elif self.peek() == "Z":
            found = self.local_name(tagged)
        else:
            if self.peek() == "S" and self.peek(2) != "St":
                found = self.substitution()
                if self.peek() != "I":
                    raise _Unsupported
            else:
                scope = "std::" if self.eat("St") else ""
                found = self.unqualified(_Node(""))
                found = _node(scope + found.left, base=found.base)
                if self.peek() == "I":
                    self.substitutions.append(found)
            self.ends_with_arguments = self.peek() == "I"
            if self.ends_with_arguments:
                found = self.with_arguments(found, tagged)
        self.leave()
        return found

    def with_arguments(self, template: _Node, tagged: bool) -> _Node:
        arguments = self.template_arguments(tagged)

        def build(named: _Node, *given: _Node) -> _Node:
            inside = ", ".join(text for one in given if (text := str(one)))
            return _node(f"{_spaced(named.left)}<{inside}>", base=named.base)

        return _lift(build, template, *arguments)

    def template_arguments(self, tagged: bool) -> list[_Node]:
        self.need("I")
        found: list[_Node] = []
        if tagged:
            self.parameters = found
        while not self.eat("E"):
            found.append(self.template_argument())
        return found

    def template_argument(self) -> _Node:
        self.enter()
        if self.eat("X"):
            found = self.expression()
            self.need("E")
        elif self.peek() == "L":
            found = self.literal()
        elif self.eat("J"):
            items = []
            while not self.eat("E"):
                items.append(self.template_argument())
            found = _Node("", "", "arguments", tuple(items))
        else:
            found = self.type()
        self.leave()
        return found

    def nested_name(self, tagged: bool) -> _Node:
        self.need("N")
        qualifiers = self.cv_qualifiers()
        qualifiers += " &" if self.eat("R") else " &&" if self.eat("O") else ""
        so_far = _Node("")
        ends = False
        constructor = False
        first = True
        while not self.eat("E"):
            self.steps += 1
            tag = self.peek()
            ends = False
            if tag == "S" and self.peek(2) != "St":
                if not first:
                    raise _Unsupported
                so_far = self.substitution()
                first = False
                continue
            if tag == "I":
                if first:
                    raise _Unsupported
                so_far = self.with_arguments(so_far, tagged)
                ends = True
            elif tag == "T":
                so_far = self.template_parameter()
            elif self.peek(2) in ("DT", "Dt"):
                so_far = self.decltype()
            elif self.eat("St"):
                so_far = self.joined(_Node("std"), self.unqualified(_Node("")))
            elif self.eat("M"):
                continue
            else:
                constructor = self.starts_constructor()
                if constructor and so_far.expanded:
                    so_far = _node(so_far.expanded, base=so_far.base)
                part = self.unqualified(so_far)
                constructor = constructor or (part.left.startswith("operator ") and part.base == "operator")
                so_far = self.joined(so_far, part)
            first = False
            self.substitutions.append(so_far)
        if not self.substitutions or first:
            raise _Unsupported
        self.substitutions.pop()
        self.ends_with_arguments = ends
        self.is_constructor = constructor
        if tagged:
            self.qualifiers = qualifiers
        return so_far

    def starts_constructor(self) -> bool:
        tag = self.peek(2)
        return tag in ("C1", "C2", "C3", "C4", "C5", "CI", "D0", "D1", "D2", "D4", "D5")

    @staticmethod
    def joined(scope: _Node, part: _Node) -> _Node:
        return _lift(
            lambda outer, inner: _node(f"{outer}::{inner.left}" if str(outer) else inner.left, base=inner.base), scope, part
        )

    def local_name(self, tagged: bool) -> _Node:
        self.need("Z")
        outer = self.encoding()
        self.need("E")
        if self.eat("s"):
            self.discriminator()
            return _node(f"{outer}::string literal")
        if self.eat("d"):
            self.digits()
            self.need("_")
        found = self.name(tagged)
        self.discriminator()
        return _node(f"{outer}::{found}", base=found.base)

    def discriminator(self) -> None:
        if self.peek(2) == "__":
            self.at += 2
            self.number()
            self.need("_")
        elif self.peek() == "_" and self.text[self.at + 1 : self.at + 2].isdigit():
            self.at += 2

    def unqualified(self, scope: _Node) -> _Node:
        """One component of a name; `scope` says how its constructors are called."""
        self.enter()
        self.eat("L")  # internal linkage
        tag = self.peek(2)
        if tag[:1].isdigit():
            text = self.source_name()
            found = _node(text, base=text)
        elif self.starts_constructor():
            found = self.constructor(scope)
        elif tag in ("Ut", "Ul"):
            found = self.unnamed()
        elif self.eat("DC"):
            names = []
            while not self.eat("E"):
                names.append(self.source_name())
            found = _node(f"[{', '.join(names)}]")
        else:
            found = self.operator()
        while self.eat("B"):
            found = replace(found, left=f"{found.left}[abi:{self.source_name()}]")
        self.leave()
        return found

    def source_name(self) -> str:
        text = self.next(self.number())
        if not text.isprintable():
            raise _Unsupported
        return "(anonymous namespace)" if text.startswith("_GLOBAL__N") else text

    def constructor(self, scope: _Node) -> _Node:
        tag = self.next(2)
        if not scope.base:
            raise _Unsupported
        if tag == "CI":
            self.next()
            self.type()
        return _node(("~" if tag[0] == "D" else "") + scope.base, base=scope.base)

    def unnamed(self) -> _Node:
        if self.next(2) == "Ut":
            number = self.digits()
            self.need("_")
            return _node(f"'unnamed{number}'")
        self.in_lambda += 1
        parameters = self.parameter_list()
        self.in_lambda -= 1
        self.need("E")
        number = self.digits()
        self.need("_")
        return _node(f"'lambda{number}'({parameters})")

    def operator(self) -> _Node:
        tag = self.next(2)
        if tag == "cv":
            return _node(f"operator {self.type()}", base="operator")
        if tag == "li":
            return _node(f'operator""{self.source_name()}')
        if tag not in _OPERATORS:
            raise _Unsupported
        return _node(f"operator{_OPERATORS[tag]}")

    def sequence(self) -> int:
        """A base-36 number and the underscore behind it; nothing at all counts as 0."""
        if self.eat("_"):
            return 0
        end = self.text.find("_", self.at)
        digits = self.text[self.at : end] if end >= 0 else ""
        if not re.fullmatch("[0-9A-Z]{1,4}", digits):
            raise _Unsupported
        self.at = end + 1
        return int(digits, 36) + 1

    def substitution(self) -> _Node:
        self.need("S")
        tag = self.peek()
        if tag in _ABBREVIATIONS:
            self.at += 1
            text, base, expanded = _ABBREVIATIONS[tag]
            found = _Node(text, base=base, expanded=expanded)
            if self.peek() == "B":
                raise _Unsupported
            return found
        number = self.sequence()
        if number >= len(self.substitutions):
            raise _Unsupported
        return self.substitutions[number]

    def template_parameter(self) -> _Node:
        self.need("T")
        if self.peek() == "L":
            raise _Unsupported
        digits = self.digits() if self.peek() != "_" else ""
        self.need("_")
        number = int(digits) + 1 if digits else 0
        if number >= len(self.parameters):
            if self.in_lambda:
                return _node("auto")
            raise _Unsupported
        found = self.parameters[number]
        return replace(found, kind="pack") if found.kind == "arguments" else found

    # types

    def cv_qualifiers(self) -> str:
        restrict, volatile, const = self.eat("r"), self.eat("V"), self.eat("K")
        return (" const" if const else "") + (" volatile" if volatile else "") + (" restrict" if restrict else "")

    def type(self) -> _Node:
        self.enter()
        found, is_new = self.type_or_substitution()
        if is_new:
            self.substitutions.append(found)
        self.leave()
        return found

    def type_or_substitution(self) -> tuple[_Node, bool]:
        """A type, and whether it can be substituted: builtin types and substitutions themselves cannot."""
        tag = self.peek()
        two = self.peek(2)
        if not tag:
            raise _Unsupported
        if tag in "rVK":
            words = self.cv_qualifiers()
            return _lift(_qualified(words), self.type_in_qualifiers()), True
        if two in _BUILTINS:
            self.at += 2
            return _node(_BUILTINS[two]), False
        if tag in _BUILTINS:
            self.at += 1
            return _node(_BUILTINS[tag]), False
        if tag in "PRO":
            self.at += 1
            return _lift(_pointer({"P": "*", "R": "&", "O": "&&"}[tag]), self.type()), True
        if tag == "S" and two != "St":
            found = self.substitution()
            if self.peek() == "I":
                return self.with_arguments(found, False), True
            return found, False
        if tag == "T":
            return self.parameter_type(), True
        if tag == "D":
            return self.extended(), True
        return self.other_type(tag), True

    def type_in_qualifiers(self) -> _Node:
        """Qualifiers and the function type behind them are one type."""
        if self.peek() == "F" or self.peek(2) in ("Do", "DO"):
            return self.function_type()
        return self.type()

    def parameter_type(self) -> _Node:
        if self.peek(2) in ("Ts", "Tu", "Te"):
            self.at += 2
            return self.name(False)
        found = self.template_parameter()
        if self.peek() == "I":
            self.substitutions.append(found)
            found = self.with_arguments(found, False)
        return found

    def other_type(self, tag: str) -> _Node:
        if tag == "F":
            return self.function_type()
        if tag == "A":
            return self.array()
        if tag == "M":
            self.at += 1
            return _lift(self.member_pointer, self.type(), self.type())
        if tag in "CG":
            self.at += 1
            word = " complex" if tag == "C" else " imaginary"
            return _lift(lambda inner: _node(inner.left + word, inner.right), self.type())
        if tag == "u":
            self.at += 1
            return _node(self.source_name())
        if tag == "U":
            self.at += 1
            word = " " + self.source_name()
            if self.peek() == "I":
                raise _Unsupported
            return _lift(lambda inner: _node(inner.left + word, inner.right), self.type())
        saved = self.ends_with_arguments, self.is_constructor
        found = self.name(False)
        self.ends_with_arguments, self.is_constructor = saved
        return found

    @staticmethod
    def member_pointer(owner: _Node, member: _Node) -> _Node:
        if member.kind == "function":
            return _node(f"{member.left}({owner}::*", f"){member.right}")
        if member.kind == "array":
            return _node(f"{member.left} ({owner}::*", f"){member.right}")
        return _node(f"{member.left} {owner}::*", member.right)

    def extended(self) -> _Node:
        two = self.peek(2)
        if two == "Dp":
            self.at += 2
            found = self.type()
            return replace(found, kind="arguments") if found.kind == "pack" else _node(f"{found}...")
        if two in ("DT", "Dt"):
            return self.decltype()
        if two in ("Do", "DO"):
            return self.function_type()
        if two == "Dv":
            self.at += 2
            size = str(self.number()) if self.peek().isdigit() else ""
            if not size:
                raise _Unsupported
            self.need("_")
            if self.eat("p"):
                return _node(f"pixel vector[{size}]")
            return _lift(lambda inner: _node(f"{inner} vector[{size}]"), self.type())
        if two == "DF":
            self.at += 2
            bits = self.number()
            self.need("_")
            return _node(f"_Float{bits}")
        if two in ("DB", "DU"):
            self.at += 2
            bits = self.number()
            self.need("_")
            return _node(f"{'unsigned ' if two == 'DU' else ''}_BitInt({bits})")
        raise _Unsupported

    def decltype(self) -> _Node:
        self.at += 2
        inner = self.expression()
        self.need("E")
        return _lift(lambda found: _node(f"decltype({found})"), inner)

    def function_type(self) -> _Node:
        exception = ""
        if self.eat("Do"):
            exception = " noexcept"
        elif self.eat("DO"):
            exception = f" noexcept({self.expression()})"
            self.need("E")
        self.need("F")
        self.eat("Y")
        returned = self.type()
        parts: list[_Node] = []
        reference = ""
        while not self.eat("E"):
            if self.peek(2) in ("RE", "OE"):
                reference = " &" if self.next() == "R" else " &&"
                continue
            parts.append(self.type())

        def build(result: _Node, *given: _Node) -> _Node:
            words = [text for one in given if (text := str(one))]
            inside = "" if words == ["void"] else ", ".join(words)
            space = "" if result.right else " "
            return _node(f"{result.left}{space}", f"({inside}){reference}{exception}{result.right}", "function")

        return _lift(build, returned, *parts)

    def array(self) -> _Node:
        self.need("A")
        size = self.digits()
        if not size and self.peek() != "_":
            size = str(self.expression())
        self.need("_")

        def build(inner: _Node) -> _Node:
            right = inner.right.removeprefix(" ") if inner.kind == "array" else inner.right
            return _node(inner.left, f" [{size}]{right}", "array")

        return _lift(build, self.type())

    # expressions

    def literal(self) -> _Node:
        self.need("L")
        if self.eat("_Z") or self.eat("Z"):
            text = self.encoding()
            self.need("E")
            return _node(text)
        tag = self.peek()
        if self.eat("DnE") or self.eat("Dn0E"):
            return _node("nullptr")
        if tag == "b" and self.text[self.at + 1 : self.at + 3] in ("0E", "1E"):
            self.at += 3
            return _node("true" if self.text[self.at - 2] == "1" else "false")
        if tag in "fdeg" and tag:
            raise _Unsupported
        kind = str(self.type())
        sign = "-" if self.eat("n") else ""
        digits = self.digits()
        self.need("E")
        if not digits:
            return _node(f'"<{kind}>"') if not sign else _node(kind)
        if tag in _LITERAL_SUFFIXES:
            return _node(f"{sign}{digits}{_LITERAL_SUFFIXES[tag]}")
        return _node(f"({kind}){sign}{digits}")

    def expression(self) -> _Node:
        self.enter()
        found = self.any_expression()
        self.leave()
        return found

    def expressions(self) -> list[_Node]:
        found = []
        while not self.eat("E"):
            found.append(self.expression())
        return found

    def any_expression(self) -> _Node:
        two = self.peek(2)
        if two[:1] == "L":
            return self.literal()
        if two[:1] == "T":
            return self.template_parameter()
        if two in ("fp", "fL"):
            return self.function_parameter()
        if two == "sr" or two[:1].isdigit() or two in ("on", "gs", "dn"):
            return self.unresolved()
        self.at += 2
        if two in _UNARY:
            sign = _OPERATORS[two]
            return _lift(lambda inner: _node(f"{sign}({inner})"), self.expression())
        if two in _BINARY:
            word = _OPERATORS[two]
            first, second = self.expression(), self.expression()
            shape = "(({a}) {op} ({b}))" if word == ">" else "({a}) {op} ({b})"
            return _lift(lambda a, b: _node(shape.format(a=a, op=word, b=b)), first, second)
        return self.operation(two)

    def operation(self, tag: str) -> _Node:
        if tag in ("dt", "pt"):
            owner = self.expression()
            word = "." if tag == "dt" else "->"
            return _lift(lambda a, b: _node(f"{a}{word}{b}"), owner, self.expression())
        if tag == "cl":
            called, *given = self.expressions()
            return _lift(lambda what, *rest: _node(f"{what}({_join(rest)})"), called, *given)
        if tag == "cv":
            target = self.type()
            given = self.expressions() if self.eat("_") else [self.expression()]
            return _lift(lambda what, *rest: _node(f"({what})({_join(rest)})"), target, *given)
        if tag in ("sc", "cc", "dc", "rc"):
            word = {"sc": "static", "cc": "const", "dc": "dynamic", "rc": "reinterpret"}[tag]
            return _lift(lambda what, inner: _node(f"{word}_cast<{what}>({inner})"), self.type(), self.expression())
        if tag in ("st", "at", "sz", "az", "nx"):
            word = {"st": "sizeof ", "sz": "sizeof ", "at": "alignof ", "az": "alignof ", "nx": "noexcept "}[tag]
            return _lift(lambda inner: _node(f"{word}({inner})"), self.type() if tag[1] == "t" else self.expression())
        if tag == "sZ":
            inner = self.expression()
            return _node(f"sizeof...({inner})")
        if tag == "sp":
            inner = self.expression()
            return replace(inner, kind="arguments") if inner.kind == "pack" else _node(f"{inner}...")
        if tag == "ix":
            return _lift(lambda a, b: _node(f"({a})[{b}]"), self.expression(), self.expression())
        if tag == "qu":
            three = self.expression(), self.expression(), self.expression()
            return _lift(lambda a, b, c: _node(f"({a}) ? ({b}) : ({c})"), *three)
        if tag == "tl":
            return _lift(lambda what, *rest: _node(f"{what}{{{_join(rest)}}}"), self.type(), *self.expressions())
        if tag == "il":
            return _lift(lambda *rest: _node(f"{{{_join(rest)}}}"), *self.expressions())
        raise _Unsupported

    def function_parameter(self) -> _Node:
        if self.eat("fL"):
            self.number()
            self.need("p")
        else:
            self.need("fp")
        if self.eat("T"):
            return _node("this")
        self.cv_qualifiers()
        number = self.digits()
        self.need("_")
        return _node(f"fp{number}")

    def unresolved(self) -> _Node:
        prefix = "::" if self.eat("gs") else ""
        parts: list[_Node] = []
        if self.eat("srN"):
            parts.append(self.unresolved_type())
            while not self.eat("E"):
                parts.append(self.simple_name())
        elif self.eat("sr"):
            if self.peek().isdigit():
                while not self.eat("E"):
                    parts.append(self.simple_name())
            else:
                parts.append(self.unresolved_type())
        parts.append(self.base_name())
        return _lift(lambda *all_parts: _node(prefix + "::".join(str(part) for part in all_parts)), *parts)

    def unresolved_type(self) -> _Node:
        if self.peek() == "T":
            found = self.template_parameter()
            self.substitutions.append(found)
        elif self.peek() == "D":
            found = self.decltype()
            self.substitutions.append(found)
        elif self.eat("St"):
            found = self.unqualified(_Node(""))
            found = _node("std::" + found.left, base=found.base)
            self.substitutions.append(found)
        else:
            found = self.substitution()
        if self.peek() == "I":
            found = self.with_arguments(found, False)
            self.substitutions.append(found)
        return found

    def simple_name(self) -> _Node:
        text = self.source_name()
        found = _node(text, base=text)
        return self.with_arguments(found, False) if self.peek() == "I" else found

    def base_name(self) -> _Node:
        if self.eat("dn"):
            inner = self.simple_name() if self.peek().isdigit() else self.unresolved_type()
            return _lift(lambda what: _node(f"~{what}"), inner)
        if self.peek().isdigit():
            return self.simple_name()
        self.eat("on")
        found = self.operator()
        return self.with_arguments(found, False) if self.peek() == "I" else found


def _join(parts: tuple[_Node, ...]) -> str:
    return ", ".join(text for part in parts if (text := str(part)))
