"""A memory in hexadecimal and as text: all of it, a screenful at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from inspector.actions import bindings
from inspector.messages import ChooseBytes, WantMemory
from inspector.panes.rows import Piece, Rows
from inspector.snapshot import Pages, Snapshot
from inspector.values import character, decoded

PAGE: Final = 4096
KEPT: Final = 64


class MemoryPane(Rows):
    """Rows of bytes. Pages are asked for when they come on the screen, and kept until the guest goes elsewhere."""

    NAME = "memory"
    BINDINGS = bindings("memory")

    def __init__(self) -> None:
        super().__init__(id="memory")
        self.memory = 0
        self.sizes: tuple[int, ...] = ()
        self.at: int | None = None
        """First chosen byte."""
        self.length = 1
        self.found: tuple[int, int] | None = None
        self._mark: object = None
        self._pages: OrderedDict[int, tuple[bytes, bytes | None]] = OrderedDict()
        self._stale: OrderedDict[int, tuple[bytes, bytes | None]] = OrderedDict()
        """Pages of the moment before: shown until the new ones are there, so that nothing flickers."""

    # -- shape

    @property
    def size_bytes(self) -> int:
        return self.sizes[self.memory] if self.memory < len(self.sizes) else 0

    @property
    def digits(self) -> int:
        return max(4, len(f"{max(0, self.size_bytes - 1):x}"))

    @property
    def per_row(self) -> int:
        """Bytes in a row: as many as fit, of 4, 8, 16 and 32."""
        room = self.size.width - self.digits - 3
        return next((count for count in (32, 16, 8) if count * 4 + (count > 8) + 1 <= room), 4)

    def count(self) -> int:
        return -(-self.size_bytes // self.per_row)

    def title(self) -> str:
        which = f" {self.memory}" if len(self.sizes) > 1 else ""
        if self.at is None:
            return f"memory{which}"
        return f"memory{which}  {self.at:#x}" + (f" +{self.length}" if self.length > 1 else "")

    def note(self) -> str:
        data = self.bytes_at(self.at, 8) if self.at is not None else b""
        if not data or self.size.width < 30:
            return f"{self.size_bytes:,} bytes"
        values = dict(decoded(data[: self.length] if self.length in (1, 2, 4, 8) else data))
        shown = [f"{kind} {values[kind]}" for kind in ("u8", "i32", "u64", "f64") if kind in values]
        text = "  ".join(shown)
        while len(text) > self.size.width - 4 and len(shown) > 1:
            shown.pop()
            text = "  ".join(shown)
        return text

    # -- bytes

    def show(self, snapshot: Snapshot) -> None:
        self.sizes = snapshot.memory_sizes
        if snapshot.mark != self._mark:
            self._mark = snapshot.mark
            self._stale, self._pages = self._pages or self._stale, OrderedDict()
        self.update()

    def take(self, pages: Pages) -> None:
        """Pages that were asked for."""
        if pages.mark != self._mark or pages.memory != self.memory:
            return
        for at in range(0, len(pages.data), PAGE):
            old = pages.old[at : at + PAGE] if pages.old is not None else None
            self._pages[(pages.address + at) // PAGE] = (pages.data[at : at + PAGE], old)
        while len(self._pages) > KEPT:
            self._pages.popitem(last=False)
        self.update()

    def bytes_at(self, address: int, length: int) -> bytes:
        """Bytes that are at hand; fewer, or none, if they are not."""
        page, at = divmod(address, PAGE)
        data = self._pages.get(page, (b"", None))[0][at : at + length]
        if len(data) < length and at + length > PAGE:
            data += self._pages.get(page + 1, (b"", None))[0][: length - len(data)]
        return data

    def update(self) -> None:
        super().update()
        self._want()

    def _want(self) -> None:
        """Asks for what is on the screen and not at hand."""
        if self._mark is None or not self.size_bytes or not self.display or not self.size.height:
            return
        first = self.top * self.per_row // PAGE
        last = min(self.size_bytes - 1, (self.top + self.room) * self.per_row - 1) // PAGE
        missing = [page for page in range(first, last + 1) if page not in self._pages]
        if missing:
            address = missing[0] * PAGE
            self.post_message(WantMemory(self.memory, address, min(self.size_bytes, (missing[-1] + 1) * PAGE) - address))

    # -- drawing

    def pieces(self, index: int, width: int) -> list[Piece]:
        per_row = self.per_row
        first = index * per_row
        page, at = divmod(first, PAGE)
        now, old = self._pages.get(page) or self._stale.get(page) or (b"", None)
        known = page in self._pages
        data = now[at : at + per_row]
        before = old[at : at + per_row] if old is not None and known else None
        pieces: list[Piece] = [(f"{first:0{self.digits}x}  ", "dim")]
        texts: list[Piece] = []
        count = min(per_row, self.size_bytes - first)
        for i in range(count):
            gap = ("  " if i and i % 8 == 0 else " ") if i else ""
            if i >= len(data):
                pieces.append((gap + "··", "dim"))
                texts.append((" ", "dim"))
                continue
            role = self._role(first + i, data[i], before[i] if before is not None and i < len(before) else None)
            join = gap if role != "pick" or not self._chosen(first + i - 1) else ""
            if join != gap and gap:
                pieces.append((gap, "pick"))
            pieces += [(join, ""), (f"{data[i]:02x}", role)]
            texts.append((character(data[i]), role))
        used = count * 3 - 1 + (count - 1) // 8
        full = per_row * 3 - 1 + (per_row - 1) // 8
        return [*pieces, (" " * (full - used) + " ", ""), *texts]

    def _chosen(self, address: int) -> bool:
        return self.at is not None and self.at <= address < self.at + self.length

    def _role(self, address: int, byte: int, before: int | None) -> str:
        if self._chosen(address):
            return "pick"
        if before is not None and before != byte:
            return "changed"
        return "dim" if byte == 0 else ""

    @property
    def shows_cursor(self) -> bool:
        return False

    # -- choosing

    def choose(self, memory: int, address: int, length: int) -> None:
        """Shows these bytes as chosen, and brings them on the screen."""
        if memory != self.memory:
            self.memory = memory
            self._pages.clear()
            self._stale.clear()
        self.at, self.length = address, length
        self.place(address // self.per_row)

    def on_resize(self) -> None:
        if self.at is not None and self.size.height:
            self.cursor = self.at // self.per_row
            self.top = max(0, self.cursor - self.room // 3)
        super().on_resize()

    def _pick(self, address: int, length: int = 1) -> None:
        if self.size_bytes:
            address = max(0, min(address, self.size_bytes - 1))
            self.post_message(ChooseBytes(self.memory, address, max(1, min(length, self.size_bytes - address))))

    def _move(self, by: int) -> None:
        start = self.at if self.at is not None else self.top * self.per_row
        self._pick(max(start % self.per_row, start + by * self.per_row) if by < 0 else start + by * self.per_row)

    def action_first_row(self) -> None:
        self._pick(0)

    def action_last_row(self) -> None:
        self._pick(self.size_bytes - 1)

    def action_cursor_left(self) -> None:
        self._pick((self.at if self.at is not None else self.top * self.per_row + 1) - 1)

    def action_cursor_right(self) -> None:
        self._pick((self.at if self.at is not None else self.top * self.per_row - 1) + 1)

    def action_select_more(self) -> None:
        self._pick(self.at or 0, self.length + 1)

    def action_select_less(self) -> None:
        self._pick(self.at or 0, self.length - 1)

    def action_choose(self) -> None:
        """Follows the pointer under the cursor."""
        if self.at is not None:
            target = int.from_bytes(self.bytes_at(self.at, 4), "little")
            if 0 < target < self.size_bytes:
                self._pick(target)

    def clicked(self, column: int) -> None:
        at = column - self.digits - 2
        per_row = self.per_row
        full = per_row * 3 - 1 + (per_row - 1) // 8
        if at > full:
            byte = at - full - 1
        elif at >= 0:
            byte = next((i for i in range(per_row) if at <= i * 3 + i // 8 + 2), per_row - 1)
        else:
            byte = 0
        self._pick((self.cursor * per_row) + min(byte, per_row - 1))
