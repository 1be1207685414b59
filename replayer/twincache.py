"""Twins as files: kept in the user's private cache by the digest of the given module, and handed to worker processes."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Final

from recorder.boundary import cache
from recorder.wasm.binary import WasmError
from replayer.twin import TWIN_VERSION, Layout, Stretches, Twin, build_twin

_MAGIC: Final = b"REPRTWIN"
_NAMES: Final = ("left", "memory", "table", "start", "memories", "globals", "tables", "instructions")


def load_twin(module: bytes) -> Twin:
    """The module's twin, from the cache or made now. Raises WasmError, by name, for what cannot have one."""
    key = b"%d " % TWIN_VERSION + module
    known = cache.load("twins", key)
    if known is not None:
        return read_twin(known, module)
    twin = build_twin(module)
    cache.save("twins", key, write_twin(twin, module))
    return twin


def write_twin(twin: Twin, module: bytes) -> bytes:
    facts = {name: getattr(twin, name) for name in _NAMES}
    layout = twin.layout
    header = json.dumps(
        {
            **facts,
            "mirrored": sorted(twin.mirrored),
            "layout": [layout.flags, layout.log, layout.dump, layout.mirror, layout.end],
            "stretches": len(twin.stretches.pcs),
        }
    ).encode()
    arrays = twin.stretches.pcs.tobytes() + twin.stretches.counts.tobytes() + twin.stretches.heads.tobytes()
    body = struct.pack("<I", len(header)) + header + arrays + twin.data
    return _MAGIC + hashlib.sha256(module + body).digest() + body


def read_twin(data: bytes, module: bytes) -> Twin:
    """The counterpart of `write_twin`; raises WasmError unless it is whole and of this module."""
    body = data[40:]
    if data[:8] != _MAGIC or data[8:40] != hashlib.sha256(module + body).digest():
        raise WasmError("the stored twin is damaged, or another module's")
    (length,) = struct.unpack_from("<I", body)
    facts = json.loads(body[4 : 4 + length])
    at = 4 + length
    count = facts["stretches"]
    stretches = Stretches()
    for column in (stretches.pcs, stretches.counts, stretches.heads):
        size = count * column.itemsize
        column.frombytes(body[at : at + size])
        at += size
    return Twin(
        body[at:],
        facts["left"],
        facts["memory"],
        facts["table"],
        facts["start"],
        tuple(facts["memories"]),
        tuple(facts["globals"]),
        tuple(facts["tables"]),
        stretches,
        frozenset(facts["mirrored"]),
        facts["instructions"],
        Layout(*facts["layout"]),
    )
