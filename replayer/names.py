"""Names of functions for people, and the functions that people mean by a name.

A binary may have up to four sources of a function's name, and may lie in each. Nothing depends on names but
what people see and type; functions are told apart by index everywhere else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

from recorder.wasm.disassembly import escaped
from recorder.wasm.module import Module
from replayer.demangle import demangle
from traces._errors import UsageError

MAX_COMPARED: Final = 20_000
"""How many names at most are compared for the suggestions in an error message."""
MAX_FORM: Final = 1_000
"""Longest form of a name, in characters, that `find` knows besides the name as it is in the binary."""
_DEEPEST: Final = 20


class Names:
    """The names of one module's functions."""

    def __init__(self, module: Module, extra: Mapping[int, str] | None = None) -> None:
        """`extra`: names known from elsewhere, such as debugging information, for functions that the name
        section leaves out."""
        self._count = len(module.functions)
        self._named = module.function_names()
        self._extra = extra or {}
        self._exports: dict[int, list[str]] = {}
        for export in module.exports:
            if export.kind == "function":
                self._exports.setdefault(export.index, []).append(export.name)
        functions = [found for found in module.imports if found.kind == "function"]
        self._imports = {index: f"{found.module}.{found.name}" for index, found in enumerate(functions)}

    def raw(self, index: int) -> str:
        """The name as the binary has it, neither demangled nor escaped: from the name section, else from
        `extra`, else the first export's, else that of the import; "function 12" if there is none."""
        return next(self._raw_names(index), f"function {index}")

    def full(self, index: int) -> str:
        """The name demangled, with the parameters of a C++ function; safe to print."""
        return escaped(demangle(self.raw(index)))

    def name(self, index: int) -> str:
        """The name to show: demangled, without the parameters of a C++ function; safe to print, and never long."""
        return escaped(demangle(self.raw(index), signature=False))

    def find(self, text: str) -> list[int]:
        """The functions meant by `text`, in order of index; at least one.

        `text` is an index (`12`, `#12`), a name as the binary has it, a demangled name with or without
        parameters and template arguments, or any of these with `*` for whatever comes there. Only if that finds
        nothing, it is the end of a qualified name: `push` or `Vec::push` for `alloc::vec::Vec<T>::push`.
        """
        text = text.strip()
        number = text.removeprefix("#")
        if number.isascii() and number.isdigit():
            return [self._checked(number)]
        if "*" in text:
            # `operator*` and `*const T` are names too, and match themselves.
            found = {index for form, indices in self._forms.items() if _matches(text, form) for index in indices}
        else:
            found = set(self._forms.get(text, ()))
            if not found:
                forms = [alias for form in _bare_forms(text) for alias in _aliases(form)]
                found = {index for form in forms for index in self._forms.get(form, ())}
            if not found:
                found = set(self._ends.get(min(_bare_forms(text), key=len), ()))
        if not found:
            raise UsageError(self._unknown(text))
        return sorted(found)

    def _raw_names(self, index: int) -> Iterator[str]:
        """Every name of a function, best first."""
        for source in (self._named, self._extra):
            if source.get(index):
                yield source[index]
        yield from (name for name in self._exports.get(index, ()) if name)
        if index in self._imports:
            yield self._imports[index]

    def _checked(self, number: str) -> int:
        if len(number) > 10 or int(number) >= self._count:
            raise UsageError(f"there is no function {escaped(number)}: the module has {self._count}")
        return int(number)

    @cached_property
    def _forms(self) -> dict[str, list[int]]:
        """All that a function may be called, to the functions it may mean."""
        return self._tables[0]

    @cached_property
    def _ends(self) -> dict[str, set[int]]:
        """The ends of qualified names without their arguments, to the functions."""
        return self._tables[1]

    @cached_property
    def _tables(self) -> tuple[dict[str, list[int]], dict[str, set[int]]]:
        known: dict[str, list[int]] = {}
        ends: dict[str, set[int]] = {}
        for index in range(self._count):
            forms: set[str] = set()
            raw_names = set(self._raw_names(index)) or {self.raw(index)}
            for raw in raw_names:
                whole, short = demangle(raw), demangle(raw, signature=False)
                bare = {form for form in _bare_forms(short) if len(form) <= MAX_FORM}
                forms |= {whole, short, escaped(short)} | bare
                for form in bare:
                    parts = form.split("::")
                    for at in range(max(1, len(parts) - 4), len(parts)):
                        ends.setdefault("::".join(parts[at:]), set()).add(index)
            for form in raw_names | {form for form in forms if len(form) <= MAX_FORM}:
                known.setdefault(form, []).append(index)
        return known, ends

    def _unknown(self, text: str) -> str:
        longest = 2 * len(text) + 8
        known = {form: form for form in self._forms if len(form) <= longest and form.isprintable()}
        if "::" not in text:  # people leave out the scope: compare with the last part, suggest the whole
            for end, indices in self._ends.items():
                if "::" not in end and len(end) <= longest:
                    known.setdefault(end, self.name(min(indices)))
        compared = list(known)[:MAX_COMPARED]
        near = dict.fromkeys(known[form] for form in difflib.get_close_matches(text[:200], compared, 6, 0.55))
        problem = f"there is no function {escaped(text)!r}"
        suggestions = [escaped(form) for form in near][:3]
        return f"{problem}: did you mean {', '.join(suggestions)}?" if suggestions else problem


def _matches(pattern: str, text: str) -> bool:
    """Whether `*` in `pattern` can stand for what makes it `text`; takes time linear in the text for each `*`."""
    first, *middle, last = pattern.split("*")
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at = len(first)
    end = len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _aliases(form: str) -> tuple[str, ...]:
    """Rust's library is one to its users, and three to its symbols."""
    rest = form.removeprefix("std::")
    return (form,) if rest == form else (form, f"alloc::{rest}", f"core::{rest}")


def _bare_forms(name: str, depth: int = 0) -> set[str]:
    """A demangled name without its template or generic arguments, and without parameters and numbered suffixes.

    Rust writes the methods of a type as `<Type as Trait>::method`: that is `Type::method` and `Trait::method`.
    """
    name = name.removesuffix(")").rpartition(" (.")[0] if name.endswith(")") and " (." in name else name
    if not name.startswith("<") or depth > _DEEPEST:
        return {_without_arguments(name)}
    close = _closing(name)
    if close is None:
        return {name}
    head, rest = name[1:close], _without_arguments(name[close + 1 :])
    owners = _split_as(head)
    return {form + rest for owner in owners for form in _bare_forms(owner, depth + 1)}


def _closing(text: str) -> int | None:
    """Where the bracket that opens `text` closes."""
    depth = 0
    for at, letter in enumerate(text):
        if letter == "<":
            depth += 1
        elif letter == ">" and text[at - 1] not in "-=":
            depth -= 1
            if depth == 0:
                return at
    return None


def _split_as(head: str) -> tuple[str, ...]:
    """`Type as Trait`, in its two parts; just the type if there is no trait."""
    depth = 0
    for at, letter in enumerate(head):
        if letter in "<([":
            depth += 1
        elif letter in ")]" or (letter == ">" and head[at - 1] not in "-="):
            depth -= 1
        elif depth == 0 and head.startswith(" as ", at):
            return head[:at], head[at + 4 :]
    return (head,)


_brackets = re.compile(
    r"\boperator(?:\(\)|[-<>=+*/%^&|~!,]+)(?: (?=<))?"
    r"|(?:::)?<|[-=]?>|(?<![:'])\((?!anonymous namespace\))"
).finditer


def _without_arguments(name: str) -> str:
    """`name` without anything in angle brackets and, at its end, in round ones; as it is if they do not match."""
    if "<" not in name and "(" not in name:
        return name
    out: list[str] = []
    depth = start = 0
    for found in _brackets(name):
        text = found[0]
        if text[0] == "o":  # an operator is a name, whatever signs it is made of
            if depth == 0:
                out.append(name[start : found.start()] + text.rstrip())
                start = found.end()
        elif text[-1] == "<":
            if depth == 0:
                out.append(name[start : found.start()])
            depth += 1
        elif text == ">" and depth:
            depth -= 1
            start = found.end()
        elif text == "(" and depth == 0 and (found.start() or out):
            out.append(name[start : found.start()])
            return "".join(out)
    bare = "".join(out) + name[start:]
    return bare if depth == 0 and bare else name
