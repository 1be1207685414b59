"""The call stack, and what the chosen frame holds."""

from __future__ import annotations

from inspector.messages import ChooseBytes, ChooseFrame, ToggleValue
from inspector.panes.rows import Piece, Rows
from inspector.snapshot import FrameDetail, FrameHead, Snapshot, ValueRow

Item = FrameHead | ValueRow


class FramesPane(Rows):
    """Frames, innermost first; below the chosen one its values."""

    NAME = "frames"

    def __init__(self) -> None:
        super().__init__(id="frames")
        self.items: list[Item] = []
        self.snapshot: Snapshot | None = None
        self.level = 0
        self.operands = False
        """Whether operands are shown beside variables; without variables they always are."""

    def count(self) -> int:
        return len(self.items)

    def show(self, snapshot: Snapshot, detail: FrameDetail | None) -> None:
        """Puts what is there on the screen; the cursor of an active pane stays on the value it was on."""
        stood = self.items[self.cursor] if self.cursor < len(self.items) else None
        self.snapshot = snapshot
        self.level = detail.level if detail is not None else 0
        items: list[Item] = []
        for head in snapshot.frames:
            items.append(head)
            if detail is not None and head.level == detail.level:
                wanted = self.operands or detail.source is None
                items += [value for value in detail.values if wanted or not value.name.startswith("operand ")]
        self.items = items
        self.place(self._again(stood))

    def _again(self, stood: Item | None) -> int:
        if isinstance(stood, ValueRow) and self.has_focus:
            for i, item in enumerate(self.items):
                if isinstance(item, ValueRow) and item.path == stood.path:
                    return i
        return next((i for i, item in enumerate(self.items) if isinstance(item, FrameHead) and item.level == self.level), 0)

    def note(self) -> str:
        if self.snapshot is None:
            return ""
        if not self.snapshot.frames:
            return "the guest does not run here"
        more = self.snapshot.depth - len(self.snapshot.frames)
        return f"{self.snapshot.depth} frames" + (f", the innermost {len(self.snapshot.frames)} shown" if more > 0 else "")

    def pieces(self, index: int, width: int) -> list[Piece]:
        item = self.items[index]
        if isinstance(item, FrameHead):
            chosen = item.level == self.level
            inlined = "".join(f"{name} ◂ " for name in item.inlined)
            return [
                ("▶" if chosen else " ", "here"), (f"#{item.level} ", "dim"), (inlined, "dim"),
                (item.name, "strong" if chosen else ""), (f"  {item.where}", "dim"),
            ]  # fmt: skip
        depth = len(item.path) - 1
        sign = ("▾ " if item.expanded else "▸ ") if item.expandable else "  "
        pieces: list[Piece] = [("  " * depth, ""), (sign, "dim"), (item.name, "name" if item.available else "dim")]
        if item.name.startswith("…"):  # of what there is no room for
            return pieces
        pieces.append((" = ", "dim"))
        pieces.append((item.text, "changed" if item.was is not None else "" if item.available else "dim"))
        if item.was is not None:
            pieces.append((f" (was {item.was})", "dim"))
        if item.type_name:
            pieces.append((f"  {item.type_name}", "dim"))
        return pieces

    def cursor_moved(self) -> None:
        item = self.items[self.cursor]
        if isinstance(item, FrameHead):
            if item.level != self.level:
                self.post_message(ChooseFrame(item.level))
        elif item.address is not None:
            self.post_message(ChooseBytes(0, item.address, item.length))

    def action_choose(self) -> None:
        item = self.items[self.cursor] if self.items else None
        if isinstance(item, FrameHead):
            self.post_message(ChooseFrame(item.level))
        elif isinstance(item, ValueRow) and item.expandable:
            self.post_message(ToggleValue(item.path))
        elif isinstance(item, ValueRow) and item.target:
            self.post_message(ChooseBytes(0, item.target, 1, show=True))

    def action_cursor_right(self) -> None:
        item = self.items[self.cursor] if self.items else None
        if isinstance(item, ValueRow) and item.expandable and not item.expanded:
            self.post_message(ToggleValue(item.path))
        else:
            super().action_cursor_right()

    def action_cursor_left(self) -> None:
        item = self.items[self.cursor] if self.items else None
        if not self.shift and isinstance(item, ValueRow) and item.expanded:
            self.post_message(ToggleValue(item.path))
        else:
            super().action_cursor_left()
