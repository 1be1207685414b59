"""How the machine and its processes talk: a header of JSON and a blob, over a Unix socket, now and then with an open socket.

Both ends are this program; a process that forks hands the socket of its child to the machine in the same way.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

_SIZES: Final = struct.Struct("<II")
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
MAX_HEADER: Final = 1 << 28


class Closed(Exception):
    """The other end is gone."""


Message = dict[str, Any]


def send(sock: socket.socket, message: Message, blob: bytes = b"", handle: int | None = None) -> None:
    header = json.dumps(message, separators=(",", ":")).encode()
    sizes = _SIZES.pack(len(header), len(blob))
    try:
        if handle is None:
            sock.sendall(sizes + header + blob)
        else:
            socket.send_fds(sock, [sizes], [handle])
            sock.sendall(header + blob)
    except OSError as error:
        raise Closed(str(error)) from None


def receive(sock: socket.socket) -> tuple[Message, bytes, int | None]:
    """The next message, its blob, and the handle that came along, if any."""
    try:
        sizes, handles, _, _ = socket.recv_fds(sock, _SIZES.size, 1, _CLOEXEC)
        while 0 < len(sizes) < _SIZES.size:
            more = sock.recv(_SIZES.size - len(sizes))
            if not more:
                raise Closed("the connection was cut")
            sizes += more
        if not sizes:
            raise Closed("the connection was closed")
        header, blob = _SIZES.unpack(sizes)
        if header > MAX_HEADER:
            raise Closed("not a message")
        body = _exactly(sock, header + blob)
    except OSError as error:
        raise Closed(str(error)) from None
    return json.loads(bytes(body[:header])), bytes(body[header:]), handles[0] if handles else None


def _exactly(sock: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    at = 0
    while at < length:
        count = sock.recv_into(view[at:])
        if not count:
            raise Closed("the connection was cut")
        at += count
    return data
