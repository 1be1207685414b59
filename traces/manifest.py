"""`manifest.json`: what ran, on what, with which rights, and how it ended. This module owns its shape in both directions."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from traces._errors import NewerFormatError, TraceError
from traces.layout import FORMAT_VERSION, VALUE_SIZE, values_size

MANIFEST_LIMIT = 64 << 20
"""Bytes; a larger manifest is refused before it is parsed."""


@dataclass(frozen=True)
class Import:
    """A function the guest could call, by position: one name may stand here twice, with two types."""

    module: str
    name: str
    params: tuple[str, ...]
    results: tuple[str, ...]
    host: str
    """Who served it: "wasi" (native), "python" (through the tap), "defined" (a host function put into a table while running)."""
    names: tuple[str, ...] = ()
    """Parameter names, where known."""
    detail: str = ""
    """Template of the decoded text; empty means `name(raw arguments)`. Its language is defined in `traces.columns`."""
    errno: bool = False
    """The first result is a WASI errno: anything but 0 makes the row's status `errno`."""

    @property
    def qualified(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def fixed_size(self) -> int:
        """Bytes of arguments and results in a CALL record."""
        return values_size(self.params) + values_size(self.results)


@dataclass(frozen=True)
class Export:
    """An exported function of the guest; its position in the manifest is the `target` in EXPORT and CALLBACK records."""

    name: str
    params: tuple[str, ...]
    results: tuple[str, ...]


@dataclass
class Manifest:
    """Field by field what `manifest.json` holds. Unknown values are None or empty, never guessed."""

    format: int = FORMAT_VERSION
    producer: str = ""
    """`reprise-wasm` and its version."""
    trace_id: str = ""
    """Random 128 bits in hex; span ids derive from it."""
    module: dict[str, Any] = field(default_factory=dict)
    """sha256, size, origin, derivation (list of names of rewritings, empty when the given bytes ran), kind."""
    engine: dict[str, Any] = field(default_factory=dict)
    """name, version, profile (every option that determinism depends on) and its fingerprint."""
    imports: list[Import] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    provided: list[dict[str, Any]] = field(default_factory=list)
    """Imported memories, globals and tables, with their types and first values."""
    invocation: dict[str, Any] = field(default_factory=dict)
    """argv, env, preopens, stdin, invoke list, hosts, command line."""
    limits: dict[str, Any] = field(default_factory=dict)
    """fuel, timeout, max_memory, max_table, max_stack."""
    capabilities: list[str] = field(default_factory=list)
    started: dict[str, Any] = field(default_factory=dict)
    """utc, realtime_ns, monotonic_ns, resolution_ns."""
    ended: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    """os, cpu architecture and features, python and library versions."""
    notes: dict[str, str] = field(default_factory=dict)
    durability: str = "process"
    """"process": survives the death of the recorder; "power": synced before each outgoing effect (`--durable`)."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """kind (returned, exit, trap, fuel, timeout, interrupted, terminated, stack, failed), code, message, clock, exit_code."""
    digested: dict[str, Any] = field(default_factory=dict)
    """What the states table covers: memories (with names), globals, tables."""
    totals: dict[str, Any] = field(default_factory=dict)
    """records, windows, bytes (uncompressed records)."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of every other file of the trace, written last."""
    attestation: Any = None
    """Evidence of a trusted execution environment: carried, not interpreted."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{where}: not valid JSON ({error}); the manifest is damaged, restore it from a copy") from None
        if not isinstance(data, dict):
            raise TraceError(f"{where}: the manifest is not a JSON object; restore it from a copy")
        version = data.get("format")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise TraceError(f"{where}: the manifest names no format version; this is not a trace manifest")
        if version > FORMAT_VERSION:
            raise NewerFormatError(
                f"{where}: trace format {version} is newer than this program's {FORMAT_VERSION}; upgrade reprise-wasm"
            )
        try:
            return cls._from_dict(data)
        except (TypeError, KeyError, ValueError) as error:
            raise TraceError(f"{where}: the manifest is malformed ({error}); restore it from a copy") from None

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        blank = cls()
        values: dict[str, Any] = {}
        for key, default in asdict(blank).items():
            value = data.get(key, default)
            if default is not None and not isinstance(value, type(default)):
                raise TypeError(f"{key!r} is {type(value).__name__}, expected {type(default).__name__}")
            values[key] = value
        unknown = set(data) - set(values)
        if unknown:
            raise KeyError(f"unknown field {sorted(unknown)[0]!r}")
        values["imports"] = [import_from_json(i) for i in values["imports"]]
        values["exports"] = [_export(e) for e in values["exports"]]
        return cls(**values)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise TraceError(f"{path}: is not a plain file; this is not a trace")
            size = status.st_size
            if size > MANIFEST_LIMIT:
                raise TraceError(f"{path}: {size} bytes is larger than any manifest; this is not a trace")
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise TraceError(f"{path}: the manifest is not UTF-8 text; restore it from a copy") from None
        except OSError as error:
            raise TraceError(f"{path}: cannot read the manifest ({error.strerror}); is this a trace?") from None
        return cls.from_json(text, str(path))


def _types(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(t, str) and t in VALUE_SIZE for t in value):
        raise ValueError(f"{value!r} is not a list of value types")
    return tuple(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def import_from_json(data: Any) -> Import:
    """One import as it stands in a manifest or in a DEFINE record; TypeError, KeyError or ValueError if it is malformed."""
    return Import(
        module=_text(data["module"]),
        name=_text(data["name"]),
        params=_types(data["params"]),
        results=_types(data["results"]),
        host=_text(data["host"]),
        names=tuple(_text(n) for n in data.get("names", ())),
        detail=_text(data.get("detail", "")),
        errno=bool(data.get("errno", False)),
    )


def _export(data: Any) -> Export:
    return Export(name=_text(data["name"]), params=_types(data["params"]), results=_types(data["results"]))
