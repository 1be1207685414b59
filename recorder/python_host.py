"""Hosts written in Python: how they are declared, and the `Guest` through which they touch the guest.

A host never reaches into the guest on its own: everything it reads, writes, grows, sets or calls goes through `Guest`, and is
thereby recorded as an effect that a replay can repeat without the host. The embedder (whoever calls exports from outside) uses
the same class, with no call around it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from recorder.boundary.linking import Provided
from recorder.boundary.raw import Raw
from recorder.values import Bits, Float, from_raw, to_raw
from traces._errors import RefusedError, UsageError
from traces.layout import TABLE_TARGET, VALUE_SIZE, Kind, Ref

if TYPE_CHECKING:
    from recorder.session import Frame, Session

__all__ = ["Bits", "Float", "FuncRef", "Guest", "HostFunction", "HostTrap", "collect", "host", "parse_signature", "provide"]

_DECLARED = "__reprise_host__"

F = TypeVar("F", bound=Callable[..., Any])


class HostTrap(Exception):
    """Raised by a host to trap the guest on purpose."""


@dataclass(frozen=True)
class HostFunction:
    """One import served from Python."""

    module: str
    name: str
    params: tuple[str, ...]
    results: tuple[str, ...]
    call: Callable[..., Any]
    where: str
    """For messages: where the function is defined."""


@dataclass
class Hosts:
    """Everything the embedder's host objects serve."""

    functions: list[HostFunction] = field(default_factory=list)
    provided: list[Provided] = field(default_factory=list)

    def find(self, module: str, name: str, params: tuple[str, ...], results: tuple[str, ...]) -> HostFunction | None:
        return next(
            (f for f in self.functions if (f.module, f.name, f.params, f.results) == (module, name, params, results)), None
        )

    def named(self, module: str, name: str) -> list[HostFunction]:
        return [f for f in self.functions if (f.module, f.name) == (module, name)]


def host(module: str, name: str, signature: str) -> Callable[[F], F]:
    """Declares a function or method as the host of import `module`.`name`; it is called with the `Guest` and the arguments.

    `signature` is text such as "i32 f32 -> i64"; either side may be empty.
    """
    params, results = parse_signature(signature)

    def declare(function: F) -> F:
        declared = list(getattr(function, _DECLARED, ()))
        declared.append((module, name, params, results))
        setattr(function, _DECLARED, tuple(declared))
        return function

    return declare


def parse_signature(signature: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    left, arrow, right = signature.partition("->")
    sides = (tuple(left.replace(",", " ").split()), tuple(right.replace(",", " ").split()))
    for t in (*sides[0], *sides[1]):
        if t not in VALUE_SIZE:
            raise UsageError(f"host signature {signature!r}: {t!r} is not one of {', '.join(VALUE_SIZE)}")
    if right and not arrow:
        raise UsageError(f"host signature {signature!r}: separate parameters and results with '->'")
    return sides


def provide(module: str, name: str, kind: str, **type_: Any) -> Provided:
    """An imported memory, global or table, as a class attribute or list item of a host object.

    `provide("env", "memory", "memory", minimum=1, maximum=16)`,
    `provide("env", "base", "global", value="i32", mutable=True, bits=1024)`,
    `provide("env", "table", "table", element="funcref", minimum=8)`.
    """
    defaults: dict[str, dict[str, Any]] = {
        "memory": {"minimum": 0, "maximum": None, "is64": False},
        "global": {"value": "i32", "mutable": False, "bits": 0},
        "table": {"element": "funcref", "minimum": 0, "maximum": None},
    }
    if kind not in defaults:
        raise UsageError(f"provide({module!r}, {name!r}): kind {kind!r} is not memory, global or table")
    unknown = set(type_) - set(defaults[kind])
    if unknown:
        raise UsageError(f"provide({module!r}, {name!r}): a {kind} has no {sorted(unknown)[0]!r}")
    return Provided(module, name, kind, {**defaults[kind], **type_})


def collect(objects: Sequence[Any]) -> Hosts:
    """The hosts found in functions, instances (classes are instantiated), modules, `Provided` values, or lists of them."""
    hosts = Hosts()
    for item in objects:
        _collect(item, hosts)
    return hosts


def _collect(item: Any, hosts: Hosts) -> None:
    if isinstance(item, Provided):
        hosts.provided.append(item)
        return
    if isinstance(item, HostFunction):
        hosts.functions.append(item)
        return
    if isinstance(item, list | tuple):
        for each in item:
            _collect(each, hosts)
        return
    if inspect.isclass(item):
        try:
            item = item()
        except TypeError as error:
            what = f"host class {item.__name__} cannot be made without arguments"
            raise RefusedError(f"{what} ({error}); pass an instance") from None
    found = len(hosts.functions) + len(hosts.provided)
    if hasattr(item, _DECLARED):
        _declare(item, hosts)
    else:
        for name in dir(item):
            value = inspect.getattr_static(item, name)
            if isinstance(value, Provided):
                hosts.provided.append(value)
            elif hasattr(getattr(value, "__func__", value), _DECLARED):
                _declare(getattr(item, name), hosts)
    if len(hosts.functions) + len(hosts.provided) == found:
        raise RefusedError(f"{item!r} declares no host functions; mark them with @reprise.host(module, name, signature)")


def _declare(call: Any, hosts: Hosts) -> None:
    where = getattr(call, "__qualname__", repr(call))
    for module, name, params, results in getattr(call, _DECLARED):
        _check_arity(call, params, where)
        hosts.functions.append(HostFunction(module, name, params, results, call, where))


def _check_arity(call: Any, params: tuple[str, ...], where: str) -> None:
    try:
        inspect.signature(call).bind(None, *params)
    except TypeError:
        raise RefusedError(
            f"host {where} has the wrong signature: it is called with (guest{''.join(f', {t}' for t in params)}), "
            f"but is declared as {where}{inspect.signature(call)}"
        ) from None
    except ValueError:
        return  # a builtin without a signature: it is called as it is


@dataclass(frozen=True)
class FuncRef:
    """A function reference a host holds: it can be called, or put into a table."""

    number: int


class Guest:
    """The guest, for as long as one host call (or one embedder's session) lasts. Used later, it raises."""

    def __init__(self, session: Session, frame: Frame) -> None:
        self._session = session
        self._frame = frame

    def _live(self) -> Session:
        if not self._frame.alive:
            raise RuntimeError("this Guest belongs to a host call that has returned; it cannot be used any more")
        if self._session.frames[-1] is not self._frame:
            raise RuntimeError("this Guest belongs to an outer host call; use the one passed to the innermost")
        return self._session

    # -- memory ----------------------------------------------------------------------------------------------------------

    def read(self, address: int, length: int, memory: int | str = 0) -> bytes:
        """Bytes of the guest's memory. They are evidence: a replay checks that the guest hands out the same."""
        session = self._live()
        index = session.memory_index(memory)
        data = session.memories[index].read(address & 0xFFFFFFFFFFFFFFFF, length)
        session.effect(self._frame, index, address, data, sent=True)
        return data

    def write(self, address: int, data: bytes | bytearray | memoryview, memory: int | str = 0) -> None:
        session = self._live()
        index = session.memory_index(memory)
        data = bytes(data)  # a view may have items of any size, in any order
        session.memories[index].write(address, data)
        session.effect(self._frame, index, address, data, sent=False)

    def memory_size(self, memory: int | str = 0) -> int:
        """Size in bytes."""
        session = self._live()
        return session.memories[session.memory_index(memory)].size

    def grow(self, pages: int, memory: int | str = 0) -> int:
        """Grows a memory; returns its previous size in pages, or -1 if that was refused."""
        session = self._live()
        return session.grow_memory(self._frame, session.memory_index(memory), pages)

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Records every change of any reachable memory made inside the block by means other than this `Guest`."""
        session = self._live()
        before = session.snapshot()
        try:
            yield
        finally:
            session.record_changes(self._frame, before)

    # -- globals and tables ------------------------------------------------------------------------------------------------

    def get_global(self, name: str) -> Any:
        session = self._live()
        index, kind = session.find_global(name)
        return from_raw(session.linked.global_bits(index), kind)

    def set_global(self, name: str, value: Any) -> None:
        session = self._live()
        index, kind = session.find_global(name)
        session.set_global(self._frame, index, to_raw(value, kind))

    def table_size(self, name: str) -> int:
        session = self._live()
        return session.table_size(session.find_table(name))

    def table_get(self, name: str, element: int) -> Any:
        """What stands in a table: None, a `FuncRef`, or the host object behind an external reference."""
        session = self._live()
        return session.table_get(self._frame, session.find_table(name), element)

    def table_set(self, name: str, element: int, value: Any, count: int = 1) -> None:
        """Puts None, a `FuncRef`, the name of an exported function, or (in externref tables) any object into a table."""
        session = self._live()
        session.table_set(self._frame, session.find_table(name), element, value, count)

    def table_grow(self, name: str, delta: int, value: Any = None) -> int:
        """Grows a table; returns its previous size, or -1 if that was refused."""
        session = self._live()
        return session.table_grow(self._frame, session.find_table(name), delta, value)

    def function(self, signature: str, call: Callable[..., Any], name: str = "") -> FuncRef:
        """A function reference to a host function, to be put into a table. Its calls are recorded like an import's."""
        session = self._live()
        params, results = parse_signature(signature)
        where = getattr(call, "__qualname__", repr(call))
        _check_arity(call, params, where)
        label = name or getattr(call, "__name__", "function")
        return session.define(self._frame, HostFunction("defined", label, params, results, call, where))

    # -- calls -------------------------------------------------------------------------------------------------------------

    def exports(self) -> list[str]:
        return [e.name for e in self._live().shape.exports]

    def call(self, export: str, *args: Any) -> Any:
        """Calls an exported function: None, one value, or a list, by the number of its results."""
        session = self._live()
        target = session.find_export(export)
        return self._call(session, target, 0, args)

    def call_table(self, name: str, element: int, *args: Any) -> Any:
        """Calls the function that stands in a table."""
        session = self._live()
        return self._call(session, TABLE_TARGET | session.find_table(name), element, args)

    def _call(self, session: Session, target: int, element: int, args: Sequence[Any]) -> Any:
        function = session.resolve(target, element)
        if len(args) != len(function.params):
            raise TypeError(f"{session.target_name(target, element)} takes {len(function.params)} arguments, got {len(args)}")
        raw = [session.to_raw(value, t) for value, t in zip(args, function.params, strict=True)]
        answers = session.invoke(self._frame, target, element, function, raw)
        values = [session.from_raw(bits, t) for bits, t in zip(answers, function.results, strict=True)]
        return None if not values else values[0] if len(values) == 1 else values

    def call_raw(self, export: str, raw: Sequence[Raw]) -> list[Raw]:
        """Calls an exported function with raw bits; returns raw bits."""
        session = self._live()
        target = session.find_export(export)
        return session.invoke(self._frame, target, 0, session.resolve(target, 0), raw)


def reference_code(value: Any, element: str) -> Ref:
    """How a Python value put into a table with that type of elements is written down."""
    if value is None:
        return Ref.NULL
    if element == "externref":
        return Ref.EXTERN
    if isinstance(value, FuncRef):
        return Ref.FUNC
    if isinstance(value, str):
        return Ref.EXPORT_FUNC
    raise TypeError(f"a table of {element} takes None, a FuncRef or the name of an exported function, not {type(value).__name__}")


CALL_KIND = {True: Kind.CALLBACK, False: Kind.EXPORT}
"""Kind of the record for a call into the guest, by whether a host makes it."""
