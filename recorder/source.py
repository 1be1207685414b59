"""Where a module comes from: a file, read and recognised before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import wasmtime

from recorder.wasm.module import is_component, is_core_module
from traces._errors import RefusedError

SIZE_LIMIT = 1 << 30
"""Bytes; a larger file is refused before it is read."""


@dataclass(frozen=True)
class Source:
    """The bytes of a core module and what to call them."""

    data: bytes
    name: str
    """Stem for the trace's name and the guest's argv[0]."""
    origin: str
    """For the manifest: where the bytes came from."""
    text: bool = False
    """They were assembled from the text format."""


def load(path: Path | str) -> Source:
    """Reads a module; the text format is assembled. Raises RefusedError for what is not a core module."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise RefusedError(f"{path}: is a directory, not a module")
        if size > SIZE_LIMIT:
            raise RefusedError(f"{path}: {size} bytes is larger than any module this program takes ({SIZE_LIMIT})")
        data = path.read_bytes()
    except OSError as error:
        raise RefusedError(f"{path}: cannot read the module ({error.strerror})") from None
    return recognise(data, path.stem, str(path.resolve()), str(path))


def recognise(data: bytes, name: str, origin: str, where: str) -> Source:
    """Bytes as a core module, or a RefusedError that says what they are instead."""
    if is_core_module(data):
        return Source(data, name, origin)
    if is_component(data):
        raise RefusedError(f"{where}: is a component; components cannot be recorded yet, only core modules")
    if not data:
        raise RefusedError(f"{where}: is empty, not a Wasm module")
    if data[:4] == b"\0asm":
        version = int.from_bytes(data[4:8], "little")
        raise RefusedError(f"{where}: is Wasm of an unknown version ({version:#x}); version 1 core modules can be recorded")
    text = _as_text(data)
    if text is None:
        raise RefusedError(f"{where}: is not a Wasm module (it begins with {data[:8].hex(' ')})")
    try:
        return Source(bytes(wasmtime.wat2wasm(text)), name, origin, text=True)
    except wasmtime.WasmtimeError as error:
        if "(module" in text or "(component" in text:
            message = " ".join(str(error).split())
            raise RefusedError(f"{where}: the text format does not assemble: {message}") from None
        raise RefusedError(f"{where}: is not a Wasm module (it begins with {data[:8].hex(' ')})") from None


def _as_text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    stripped = text.lstrip()
    return text if stripped.startswith(("(", ";;", "(;")) else None
