"""A memory in hexadecimal and as text: all of it, a screenful at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.strip import Strip

from inspector.actions import bindings
from inspector.memory.search import Span, Wanted, overlap, spans
from inspector.memory.values import MOST_TEXT, character, decoded
from inspector.messages import ChooseBytes, Tell, WantMemory
from inspector.panes.decoder import decoder_lines, most_lines
from inspector.panes.rows import Piece, Rows, plain
from inspector.snapshot import Pages, Snapshot

PAGE: Final = 4096
KEPT: Final = 64
LEAST: Final = 3
"""Rows of bytes that stay, whatever else is shown."""


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
        self.wide: tuple[bool, ...] = ()
        """Of each memory, whether its addresses have 64 bits."""
        self.decoding = False
        """Whether the chosen bytes are decoded at the foot of the pane."""
        self._wanted: Wanted = b""
        """What was looked for: wherever it is on the screen, it stands out."""
        self._found: list[Span] = []
        self._since = ""
        """The chosen mark that bytes are compared with; empty for the stop before."""
        self._places: dict[int, tuple[int | None, int]] = {}
        """What was chosen in each memory when it was left."""
        self._mark: object = None
        """The moment that is shown, and the one it is compared with."""
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
        which = f" {self.memory} of {len(self.sizes)}" if len(self.sizes) > 1 else ""
        chosen = "" if self.at is None else f"  {self.at:#x}" + (f" +{self.length}" if self.length > 1 else "")
        return f"memory{which}{chosen}" + (f"  since {self._since}" if self._since else "")

    def note(self) -> str:
        data = self.bytes_at(self.at, 8) if self.at is not None else b""
        if not data or self.size.width < 30 or self._foot:
            return f"{self.size_bytes:,} bytes"
        values = dict(decoded(data[: self.length] if self.length in (1, 2, 4, 8) else data))
        shown = [f"{kind} {values[kind]}" for kind in ("u8", "i32", "u64", "f64") if kind in values]
        text = "  ".join(shown)
        while len(text) > self.size.width - 4 and len(shown) > 1:
            shown.pop()
            text = "  ".join(shown)
        return text

    # -- bytes

    def show(self, snapshot: Snapshot, pages: Pages | None = None) -> None:
        """Shows a moment; `pages` are those that are likely to be asked for."""
        self.sizes = snapshot.memory_sizes
        self._since = ""
        if snapshot.compared:
            self._since = f"e{snapshot.before_event}" if snapshot.before_event is not None else f"{snapshot.before}"
        if self._mark != (snapshot.mark, snapshot.before):
            self._mark = (snapshot.mark, snapshot.before)
            self._stale, self._pages = self._pages or self._stale, OrderedDict()
            if pages is not None:
                self._keep(pages)
        self.update()

    def take(self, pages: Pages) -> None:
        """Pages that were asked for."""
        self._keep(pages)
        self.update()

    def _keep(self, pages: Pages) -> None:
        if self._mark != (pages.mark, pages.before) or pages.memory != self.memory:
            return
        for at in range(0, len(pages.data), PAGE):
            old = pages.old[at : at + PAGE] if pages.old is not None else None
            self._pages[(pages.address + at) // PAGE] = (pages.data[at : at + PAGE], old)
        while len(self._pages) > KEPT:
            self._pages.popitem(last=False)

    def bytes_at(self, address: int, length: int) -> bytes:
        """Bytes that are at hand; fewer, or none, if they are not."""
        page, at = divmod(address, PAGE)
        data = self._pages.get(page, (b"", None))[0][at : at + length]
        if len(data) < length and at + length > PAGE:
            data += self._pages.get(page + 1, (b"", None))[0][: length - len(data)]
        return data

    def update(self) -> None:
        self.top = max(0, min(self.top, self.count() - self.room))
        self._mark_found()
        super().update()
        self._want()

    def highlight(self, wanted: Wanted) -> None:
        """What stands out from now on, wherever it is on the screen; b"" for nothing."""
        self._wanted = wanted
        self.update()

    def _mark_found(self) -> None:
        self._found = []
        if self._wanted and self.size_bytes:
            more = overlap(self._wanted)
            first = max(0, self.top * self.per_row - more)
            end = (self.top + self.room) * self.per_row
            data = self._shown_bytes(first, end + more - first)
            self._found = [(first + at, length) for at, length in spans(self._wanted, data, end - first)]

    def _shown_bytes(self, address: int, length: int) -> bytes:
        """Bytes from an address on, as far as they are at hand; those before the first at hand as zeros."""
        found = bytearray()
        for page in range(address // PAGE, (address + length - 1) // PAGE + 1):
            data = self._pages.get(page, (b"", None))[0]
            found += data.ljust(PAGE, b"\0")
        at = address % PAGE
        return bytes(found[at : at + min(length, self.size_bytes - address)])

    def _want(self) -> None:
        """Asks for what is on the screen and not at hand."""
        if self._mark is None or not self.size_bytes or not self.display or not self.size.height:
            return
        first = self.top * self.per_row // PAGE
        last = min(self.size_bytes - 1, (self.top + self.room) * self.per_row - 1) // PAGE
        missing = [page for page in range(first, last + 1) if page not in self._pages]
        # Of the chosen bytes, wherever they are, it is told what they mean; the memory may not have grown up to them yet.
        if not missing and self.at is not None and self.at < self.size_bytes:
            around = (self.at // PAGE, min(self.size_bytes - 1, self.at + MOST_TEXT) // PAGE)
            missing = [page for page in around if page not in self._pages]
        if missing:
            address = missing[0] * PAGE
            self.post_message(WantMemory(self.memory, address, min(self.size_bytes, (missing[-1] + 1) * PAGE) - address))

    # -- the decoder

    @property
    def room(self) -> int:
        return max(1, self.size.height - self._foot)

    @property
    def _foot(self) -> int:
        """Rows of the decoder: as many as it may need, so that nothing jumps as other bytes are chosen."""
        if not self.decoding:
            return 0
        return max(0, min(most_lines(self.size.width) + 1, self.size.height - LEAST))

    def draw(self, y: int, width: int, base: Style) -> Strip:
        if y < self.room:
            return super().draw(y, width, base)
        line: list[Piece] = [("─" * width, "dim")]
        if y > self.room:
            lines = self._meanings(width)
            line = lines[y - self.room - 1] if y - self.room <= len(lines) else []
        segments = [Segment(plain(text), self.get_component_rich_style(f"rows--{role}") if role else base) for text, role in line]
        return Strip(segments).crop_extend(0, width, base)

    def _meanings(self, width: int) -> list[list[Piece]]:
        if self.at is None:
            return [[("choose bytes to see what they mean", "dim")]]
        return decoder_lines(self.bytes_at(self.at, MOST_TEXT + 1), self.size_bytes, self.is_wide, width)

    @property
    def is_wide(self) -> bool:
        """Whether pointers into this memory have 8 bytes."""
        return self.memory < len(self.wide) and self.wide[self.memory]

    def action_decode(self) -> None:
        """Shows what the chosen bytes mean, or no longer."""
        self.decoding = not self.decoding
        self.set_class(self.decoding, "-decoding")
        self.on_resize()

    # -- drawing

    def pieces(self, index: int, width: int) -> list[Piece]:
        per_row = self.per_row
        first = index * per_row
        page, at = divmod(first, PAGE)
        now, old = self._pages.get(page) or self._stale.get(page) or (b"", None)
        known = page in self._pages
        data = now[at : at + per_row]
        before = old[at : at + per_row] if old is not None and known else None
        found = {first + i for at, length in self._found for i in range(at - first, at - first + length) if 0 <= i < per_row}
        pieces: list[Piece] = [(f"{first:0{self.digits}x}  ", "dim")]
        texts: list[Piece] = []
        count = min(per_row, self.size_bytes - first)
        for i in range(count):
            gap = ("  " if i and i % 8 == 0 else " ") if i else ""
            if i >= len(data):
                pieces.append((gap + "··", "dim"))
                texts.append((" ", "dim"))
                continue
            role = self._role(first + i, data[i], before[i] if before is not None and i < len(before) else None, found)
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

    def _role(self, address: int, byte: int, before: int | None, found: set[int]) -> str:
        if self._chosen(address):
            return "pick"
        if address in found:
            return "mark"
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
            self._places[self.memory] = (self.at, self.length)
            self.memory = memory
            self._pages.clear()
            self._stale.clear()
        self.at, self.length = address, length
        self.place(address // self.per_row)

    def action_memory_next(self) -> None:
        """Shows the next memory, where it was left."""
        if len(self.sizes) < 2:
            self.post_message(Tell("the module has one memory"))
            return
        memory = (self.memory + 1) % len(self.sizes)
        size = self.sizes[memory]
        if not size:
            self.post_message(Tell(f"memory {memory} is empty"))
        at, length = self._places.get(memory, (None, 1))
        at = min(at or 0, max(0, size - 1))
        length = max(1, min(length, size - at))
        self.choose(memory, at, length)
        self.post_message(ChooseBytes(memory, at, length))

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
        if self.at is None:
            return
        width = 8 if self.is_wide else 4
        data = self.bytes_at(self.at, width)
        target = int.from_bytes(data, "little")
        if len(data) < width:
            self.post_message(Tell(f"a pointer has {width} bytes; there are not so many"))
        elif not 0 < target < self.size_bytes:
            self.post_message(Tell(f"{target:#x} is not in this memory" if target else "a null pointer"))
        else:
            self.post_message(ChooseBytes(self.memory, target, 1, follows=True))

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is not None and at.y >= self.room:
            event.prevent_default()  # the decoder is no row of bytes

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
