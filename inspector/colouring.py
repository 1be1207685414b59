"""Which parts of a source line are keywords, strings, comments and numbers: for the eye, not for a compiler.

Made here, since a line may be anything: what matches never goes back on itself, so that time grows with the length alone. Only a
comment is followed from one line to the next; a string ends with its line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

WIDEST: Final = 1000
"""Columns of a line that are coloured."""
LARGEST: Final = 1 << 20
"""Characters of a file up to which it is looked through for comments of several lines."""
_C: Final = """auto bool break case char const continue default do double else enum extern false float for goto if inline int long
    register restrict return short signed sizeof static struct switch true typedef union unsigned void volatile while NULL"""
_WORDS: Final = {
    "c": _C,
    "cpp": f"""{_C} alignas alignof catch class concept const_cast constexpr consteval co_await co_return co_yield decltype delete
        dynamic_cast explicit export final friend import module mutable namespace new noexcept nullptr operator override private
        protected public reinterpret_cast requires static_assert static_cast template this throw try typeid typename using
        virtual""",
    "rust": """as async await bool break char const continue crate dyn else enum extern f32 f64 false fn for i8 i16 i32 i64 i128
        if impl in isize let loop match mod move mut pub ref return self Self static str struct super trait true type u8 u16
        u32 u64 u128 union unsafe use usize where while""",
    "zig": """align allowzero and anyerror anytype asm async await bool break catch comptime const continue defer else enum
        errdefer error export extern f32 f64 false fn for if inline noalias null nosuspend or orelse packed pub resume return
        struct suspend switch test threadlocal true try type u8 u16 u32 u64 i8 i16 i32 i64 undefined union unreachable usize
        usingnamespace var void volatile while""",
    "go": """any bool break byte case chan const continue default defer else error fallthrough false for func go goto if import
        int int32 int64 interface map nil package range return rune select string struct switch true type uint32 uint64 var""",
    "ts": """as async await bool boolean break case catch class const continue declare default do else enum export extends f32 f64
        false finally for from function i32 i64 if implements import in instanceof interface let namespace new null number of
        private protected public return static string super switch this throw true try type typeof u32 u64 usize var void
        while""",
}
_WRITTEN_IN: Final = {
    "c": "c", "h": "c", "cc": "cpp", "cpp": "cpp", "cxx": "cpp", "hh": "cpp", "hpp": "cpp", "rs": "rust", "zig": "zig",
    "go": "go", "ts": "ts",
}  # fmt: skip
"""Languages, by the ends of files' names."""
_KEYWORDS: Final = {name: frozenset(words.split()) for name, words in _WORDS.items()}
_PARTS: Final = re.compile(
    r"""(?P<comment>//.*+|/\*.*?(?:\*/|$))
      | (?P<string>"(?:[^"\\]|\\.)*+"?+|'(?:[^'\\]|\\[^']{1,8}+|\\')')
      | (?P<keyword>^\s*+\#\s*+[a-z]++)
      | (?P<number>\b[0-9][0-9A-Za-z_]*+(?:\.[0-9][0-9A-Za-z_]*+)?+)
      | (?P<word>[A-Za-z_][0-9A-Za-z_]*+)""",
    re.VERBOSE,
)

Part = tuple[str, str]
"""Text, and its role; "" for what has none."""


def language(file: str) -> str | None:
    """What a file is written in; None for what is not coloured."""
    return _WRITTEN_IN.get(file.rpartition(".")[2].lower())


def inside_comments(file: str, lines: Sequence[str]) -> frozenset[int]:
    """The lines, counted from 0, that begin inside a comment; none are known of files that are not coloured, or too large."""
    if language(file) is None or sum(map(len, lines)) > LARGEST:
        return frozenset()
    found, inside = [], False
    for number, line in enumerate(lines):
        if inside:
            found.append(number)
        if inside or "/*" in line:
            inside = _ends_inside(line[:WIDEST], inside)
    return frozenset(found)


def _ends_inside(line: str, inside: bool) -> bool:
    at = 0
    if inside:
        end = line.find("*/")
        if end < 0:
            return True
        at = end + 2
    last = [match for match in _PARTS.finditer(line, at) if match.lastgroup == "comment"][-1:]
    return bool(last) and last[0][0].startswith("/*") and not (last[0][0].endswith("*/") and len(last[0][0]) > 3)


def coloured(line: str, file: str, inside: bool) -> list[Part]:
    """A line of a file in parts. `inside`: it begins inside a comment."""
    written_in = language(file)
    if written_in is None:
        return [(line, "")]
    parts: list[Part] = []
    at = 0
    text = line[:WIDEST]
    if inside:
        end = text.find("*/")
        at = end + 2 if end >= 0 else len(text)
        parts.append((text[:at], "comment"))
    keywords = _KEYWORDS[written_in]
    for match in _PARTS.finditer(text, at):
        role = match.lastgroup or ""
        if role == "word":
            role = "keyword" if match[0] in keywords else ""
        if not role:
            continue
        if match.start() > at:
            parts.append((text[at : match.start()], ""))
        parts.append((match[0], role))
        at = match.end()
    return [*parts, (line[at:], "")]
