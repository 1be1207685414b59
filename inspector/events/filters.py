"""Which events to show, as one line of text, and what is looked for in them.

    fd_ clock          words: parts of the name of an import or export
    import=fd_         part of the name of an import
    status=errno       or denied, trap, ok, open; several as errno,denied
    kind=call          call, return, export, trap …
    effect             what changed something outside; effects=world,file,output,talk says which
    seq>=100           by number; also =, <, <=, >
    "9999"  /99+/      text or a regular expression, in what the event says and in the bytes that crossed; also text=…
    -status=ok         not so

All of them must hold. Text without capital letters is found in either case. A number is also found as an argument or result.
Regular expressions are RE2's: whatever a guest has written, they take time linear in it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from inspector.events.index import FILE, OUTPUT, TALK, WORLD, Columns, Index, Sort
from traces._errors import UsageError
from traces.columns import KINDS, STATUSES
from traces.render import pieces

EFFECTS: Final = {"talk": TALK, "output": OUTPUT, "file": FILE, "world": WORLD}
HINT: Final = 'fd_  status=errno,denied  kind=call  effect  effects=output  seq>=100  "text"  /regex/  -not'
_AT_ONCE: Final = 256
"""Records whose bytes are looked through between two ticks."""
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

Tick = Callable[[], None]
"""Called now and then; raises to end the work."""


class Look:
    """One window, as it is looked through: its index, and columns that are read when they are first needed."""

    def __init__(self, index: Index, columns: Columns) -> None:
        self.index = index
        self._columns = columns
        self._read: dict[str, Any] = {}

    def column(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = self._columns([name]).column(name)
        return self._read[name]

    def all(self, value: bool) -> Any:
        return pa.repeat(pa.scalar(value), self.index.rows)


# -- text --------------------------------------------------------------------------------------------------------------------


class Needle:
    """What to look for in events: text, or `/a regular expression/`. Raises UsageError if it cannot be looked for."""

    def __init__(self, text: str) -> None:
        quote = len(text) > 1 and text[0] == text[-1] and text[0] in '"/'
        self.text = text
        body = text[1:-1] if quote else text
        if not body:
            raise UsageError("write what to look for")
        regex = quote and text[0] == "/"
        letters = re.sub(r"\\.", "", body) if regex else body
        self._ignore_case = letters == letters.lower()
        self._body = body
        self._match = pc.match_substring_regex if regex else pc.match_substring
        self._numbers = [] if regex else _as_words(body)
        try:
            self._in(pa.array([b""], pa.large_binary()))  # one that is empty is not looked at
        except pa.ArrowException as error:
            raise UsageError(f"{text}: {str(error).splitlines()[0].removeprefix('Invalid: ')}") from None

    def _in(self, array: Any) -> Any:
        return pc.fill_null(self._match(array, self._body, ignore_case=self._ignore_case), False)

    def mask(self, look: Look, tick: Tick, among: Any = None) -> Any:
        """Which events of a window say or carry it; `among` says which of them matter."""
        found = self._said(look)
        if self._numbers:
            found = pc.or_(found, pc.or_(self._among_words(look, "args"), self._among_words(look, "results")))
        return pc.or_(found, self._carried(look, tick, among))

    def _said(self, look: Look) -> Any:
        names = self._in(pa.array([sort.name for sort in look.index.sorts], pa.string())).to_pylist()
        hits = {sort for sort, hit in zip(look.index.sorts, names, strict=True) if hit}
        detail = look.column("detail")
        texts = pc.indices_nonzero(self._in(detail.dictionary.cast(pa.string())))
        told = pc.is_in(detail.indices, value_set=texts.cast(detail.indices.type))
        return pc.or_(look.index.wanted(lambda sort: sort in hits), told)

    def _among_words(self, look: Look, name: str) -> Any:
        words = look.column(name)
        hits = pc.is_in(words.flatten(), value_set=pa.array(self._numbers, pa.uint64()))
        rows = pc.list_parent_indices(words).filter(hits)
        if not len(rows):
            return look.all(False)
        return pc.is_in(pa.array(range(look.index.rows), rows.type), value_set=rows)

    def _carried(self, look: Look, tick: Tick, among: Any) -> Any:
        """By the bytes of guest memory alone: records hold more, so what is in one is looked at again piece by piece."""
        records, starts = look.column("record"), look.column("chunks_at")
        likely = pc.and_(self._in(records), pc.is_valid(starts))
        likely = likely if among is None else pc.and_(likely, among)
        records, starts = records.filter(likely), starts.filter(likely)
        sure: list[bool] = []
        for at in range(0, len(records), _AT_ONCE):
            tick()
            chosen = zip(records.slice(at, _AT_ONCE).to_pylist(), starts.slice(at, _AT_ONCE).to_pylist(), strict=True)
            carried = [[piece.data for piece in pieces(record, start)] for record, start in chosen]
            hits = iter(self._in(pa.array([data for datas in carried for data in datas], pa.large_binary())).to_pylist())
            sure += [True in [next(hits) for _ in datas] for datas in carried]
        return pc.replace_with_mask(likely, likely, pa.array(sure, pa.bool_()))


def _as_words(text: str) -> list[int]:
    """The raw words that a number may stand for among arguments."""
    if not re.fullmatch(r"-?(\d{1,20}|0x[0-9a-fA-F]{1,16})", text):
        return []
    number = int(text, 0 if "x" in text else 10)
    if number >= 0:
        return [number] if number < 1 << 64 else []
    return [number % (1 << bits) for bits in (32, 64) if number >= -(1 << (bits - 1))]


# -- terms -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Like:
    """What the index says."""

    test: Callable[[Sort], bool]

    def mask(self, look: Look, tick: Tick, among: Any) -> Any:
        return look.index.wanted(self.test)


@dataclass(frozen=True)
class Numbered:
    """By the number of the event."""

    compare: str
    number: int

    def mask(self, look: Look, tick: Tick, among: Any) -> Any:
        first, rows = look.index.first, look.index.rows
        before = min(max(0, self.number - first), rows)
        here = 1 if first <= self.number < first + rows else 0
        holds = _COMPARE[self.compare]
        parts = ((holds(0, 1), before), (holds(1, 1), here), (holds(2, 1), rows - before - here))
        return pa.concat_arrays([pa.repeat(pa.scalar(value), count) for value, count in parts])


@dataclass(frozen=True)
class Says:
    """By what it says or carries."""

    needle: Needle

    def mask(self, look: Look, tick: Tick, among: Any) -> Any:
        return self.needle.mask(look, tick, among)


@dataclass(frozen=True)
class Term:
    holds: Like | Numbered | Says
    negated: bool


@dataclass(frozen=True)
class Filter:
    """Terms that must all hold."""

    text: str
    terms: tuple[Term, ...]
    """Those that need more than the index come last."""

    @property
    def reads(self) -> bool:
        """Whether it takes more than the index."""
        return any(isinstance(term.holds, Says) for term in self.terms)

    def mask(self, look: Look, tick: Tick = lambda: None) -> Any:
        """Which events of a window pass, as an array of booleans."""
        found = look.all(True)
        for term in self.terms:
            if not found.true_count:
                break
            mask = term.holds.mask(look, tick, found)
            found = pc.and_not(found, mask) if term.negated else pc.and_(found, mask)
        return found


# -- the language ------------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""(?P<minus>-)?(?:(?P<key>[a-z]+)(?P<op>>=|<=|!=|=|>|<))?(?P<value>"[^"]*"|/(?:[^/\\]|\\.)+/|[^\s"/][^\s"]*)?(?=\s|$)"""
)


def parse(text: str) -> Filter:
    """Reads a filter. Raises UsageError with what is wrong with it."""
    terms: list[Term] = []
    at, text = 0, text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.end() == at:
            raise UsageError(_unread(text[at:]))
        key, compare, value = found["key"], found["op"] or "", found["value"] or ""
        holds = _term(key, compare, value)
        terms.append(Term(holds, bool(found["minus"]) != (compare == "!=" and not isinstance(holds, Numbered))))
        at = found.end()
        at += len(text[at:]) - len(text[at:].lstrip())
    terms.sort(key=lambda term: isinstance(term.holds, Says))
    return Filter(text, tuple(terms))


def _unread(rest: str) -> str:
    word = rest.split()[0]
    if '"' in word:
        return f'{word}: a quotation ends with "'
    if "/" in word:
        return f'{word}: a regular expression ends with /; text with a slash stands in "quotes"'
    return f"{word}: cannot be read"


def _term(key: str | None, compare: str, value: str) -> Like | Numbered | Says:
    if key is None:
        if value == "effect":
            return Like(lambda sort: sort.effect >= FILE)
        if value[:1] in ('"', "/"):
            return Says(Needle(value))
        if not value:
            raise UsageError("-: write what not to show behind it")
        return Like(lambda sort: value.lower() in sort.name.lower())
    if key == "seq":
        if not value.isdecimal():
            raise UsageError(f"seq{compare}{value}: write the number of an event")
        return Numbered(compare, int(value))
    if key not in _KEYS:
        raise UsageError(f"{key}{compare}: there is no such term; there are {', '.join(f'{name}=' for name in _KEYS)} and seq>=")
    if compare not in ("=", "!="):
        raise UsageError(f"{key}{compare}: write {key}= or {key}!=")
    if not value:
        raise UsageError(f"{key}{compare}: write what it must be")
    return _KEYS[key](value)


def _among(key: str, value: str, known: Sequence[str]) -> frozenset[str]:
    wanted = value.split(",")
    for one in wanted:
        if one not in known:
            raise UsageError(f"{key}={one}: no event has it; choose of {', '.join(known)}")
    return frozenset(wanted)


def _kind(value: str) -> Like:
    wanted = _among("kind", value, KINDS)
    return Like(lambda sort: sort.kind in wanted)


def _status(value: str) -> Like:
    wanted = _among("status", value, STATUSES)
    return Like(lambda sort: sort.status in wanted)


def _effects(value: str) -> Like:
    wanted = {EFFECTS[name] for name in _among("effects", value, tuple(EFFECTS))}
    return Like(lambda sort: sort.effect in wanted)


def _import(value: str) -> Like:
    return Like(lambda sort: sort.has_import and value.lower() in sort.name.lower())


_KEYS: Final[Mapping[str, Callable[[str], Like | Says]]] = {
    "import": _import, "kind": _kind, "status": _status, "effects": _effects, "text": lambda value: Says(Needle(value)),
}  # fmt: skip
