"""What the bytes under the cursor mean: some lines at the foot of the memory pane, in as many columns as there is room for."""

from __future__ import annotations

from typing import Final

from inspector.memory.values import explained
from inspector.panes.rows import Piece

TWO_COLUMNS: Final = 56
"""Width from which integers stand beside the rest."""
_LABEL: Final = 9
_SIDE: Final = ("8", "16", "32", "64")
_BESIDE: Final = ("f32", "f64", "pointer", "leb128")


def most_lines(width: int) -> int:
    """Lines there are at most."""
    return 10 if width < TWO_COLUMNS else 6


def decoder_lines(data: bytes, size: int, wide: bool, width: int) -> list[list[Piece]]:
    """The lines; see `values.explained`."""
    found = explained(data, size, wide)
    if width < TWO_COLUMNS:
        return [_cell(kind, text) for kind, text in found]
    left = [one for one in found if one[0] in _SIDE]
    right = [one for one in found if one[0] in _BESIDE]
    column = max((_LABEL + len(text) + 3 for _, text in left), default=0)
    lines = []
    for i in range(max(len(left), len(right))):
        line = _cell(*left[i]) if i < len(left) else []
        used = sum(len(text) for text, _ in line)
        if i < len(right):
            line = [*line, (" " * max(1, column - used), ""), *_cell(*right[i])]
        lines.append(line)
    return lines + [_cell(kind, text) for kind, text in found if kind not in (*_SIDE, *_BESIDE)]


def _cell(kind: str, text: str) -> list[Piece]:
    label = f"{kind} bits" if kind in _SIDE else kind
    return [(f"{label:<{_LABEL}}", "dim"), (text, "")]
