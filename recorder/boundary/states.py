"""Digests of everything in a guest that can be compared from outside: memories page by page, globals, tables.

Recording takes them and replay takes them again; this is the only place that decides what they cover.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import wasmtime

from recorder.boundary.linking import Linked
from traces.layout import PAGE


@dataclass(frozen=True)
class State:
    """The state of one memory, global or table at one moment."""

    what: str
    """memory, global or table"""
    index: int
    name: str
    """Export name, or "" for what the guest keeps to itself (memories only)."""
    size: int
    """Bytes of a memory, elements of a table, 0 for a global."""
    digest: bytes
    pages: tuple[bytes, ...] = ()
    """SHA-256 of each 64 KiB page of a memory."""
    value: bytes | None = None
    """Raw bits of a global."""


_ZERO_PAGE = bytes(PAGE)
_ZERO_DIGEST = hashlib.sha256(_ZERO_PAGE).digest()


def take(linked: Linked) -> list[State]:
    """Digests of the guest as it is now: unexported memories too, but only exported or imported globals and tables."""
    states = []
    for index, memory in enumerate(linked.memories):
        view = memory.view()
        pages = tuple(_page(view[at : at + PAGE]) for at in range(0, memory.size, PAGE))
        name = linked.shape.export_name("memory", index) or ""
        states.append(State("memory", index, name, memory.size, hashlib.sha256(b"".join(pages)).digest(), pages))
    if linked.start_failure is not None:
        return states
    for index in linked.reachable("global"):
        value = linked.global_bits(index).to_bytes(16, "little")
        name = linked.shape.export_name("global", index) or ""
        states.append(State("global", index, name, 0, hashlib.sha256(value).digest(), (), value))
    for index in linked.reachable("table"):
        size, digest = _table(linked, index)
        states.append(State("table", index, linked.shape.export_name("table", index) or "", size, digest))
    return states


def _page(page: memoryview) -> bytes:
    # Untouched pages are common, and comparing is faster than hashing, provided it is bytes that are compared: between a
    # memoryview and bytes Python compares item by item.
    return _ZERO_DIGEST if bytes(page) == _ZERO_PAGE else hashlib.sha256(page).digest()


def _table(linked: Linked, index: int) -> tuple[int, bytes]:
    """Which elements are null, which are equal to each other, and which are exported functions under which name.

    Functions have no other identity that holds in another process.
    """
    element = linked.shape.module.tables[index].element
    size = linked.table_size(index)
    digest = hashlib.sha256(f"{element} {size}".encode())
    if element not in ("funcref", "externref"):
        return size, digest.digest()
    references = linked.machine.references
    names = {
        references.address_of_function(wasmtime.Func._from_raw(linked.exported(target).func)): e.name
        for target, e in enumerate(linked.shape.exports)
    }
    seen: dict[int, int] = {}
    for i in range(size):
        value = linked.table_get(index, i)
        if value is None:
            digest.update(b"\0")
        elif isinstance(value, int):
            digest.update(f"x{value};".encode())
        else:
            address = references.address_of_function(value)
            number = seen.setdefault(address, len(seen))
            digest.update(f"f{number}:{names.get(address, '')};".encode())
    return size, digest.digest()


def digested(linked: Linked) -> dict[str, object]:
    """What `take` covers, for the manifest and the verdict."""
    return {
        "memories": [linked.shape.export_name("memory", i) or f"memory {i}" for i in range(len(linked.memories))],
        "globals": [linked.shape.export_name("global", i) or f"global {i}" for i in linked.reachable("global")],
        "tables": [linked.shape.export_name("table", i) or f"table {i}" for i in linked.reachable("table")],
    }
