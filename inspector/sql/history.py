"""Statements that were run before, in a file of the user's: one JSON text in a line, the newest first.

Every session adds to the same file, so it is read again before it is written. What makes no sense in it is passed over.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from traces._errors import UsageError

MOST: Final = 500
"""Statements that are kept."""
_LONGEST: Final = 20_000
"""Characters of a statement that is kept."""
_LARGEST: Final = 16 << 20
"""Bytes of a file that is read at all."""


def history_file() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "reprise" / "sql-history"


class History:
    """What was run before, in this session and in others."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or history_file()

    def read(self) -> list[str]:
        """Newest first; nothing if there is no file, or none that can be read."""
        try:
            if not self.path.is_file() or self.path.stat().st_size > _LARGEST:
                return []
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []  # it is a convenience; that it cannot be written either is told then
        return list(dict.fromkeys(sql for sql in map(_statement, lines) if sql))[:MOST]

    def add(self, sql: str) -> None:
        """Puts a statement first. Raises UsageError where nothing can be written."""
        sql = sql.strip()
        if sql and len(sql) <= _LONGEST:
            self._change(lambda known: [sql, *(one for one in known if one != sql)])

    def remove(self, sql: str) -> None:
        """Forgets a statement. Raises UsageError where nothing can be written."""
        self._change(lambda known: [one for one in known if one != sql])

    def _change(self, change: Callable[[list[str]], list[str]]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lines = [json.dumps(sql) + "\n" for sql in change(self.read())[:MOST]]
            # Made private to the user, and put in place whole.
            handle, partial = tempfile.mkstemp(dir=self.path.parent, prefix=".sql-history-")
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    file.writelines(lines)
                os.replace(partial, self.path)
            except BaseException:
                os.unlink(partial)
                raise
        except OSError as error:
            raise UsageError(f"{self.path}: statements cannot be kept ({error.strerror or error})") from None


def _statement(line: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    return found if isinstance(found, str) and len(found) <= _LONGEST else ""
