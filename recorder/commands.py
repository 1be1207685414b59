"""What `reprise` mounts from this room: record, run, demo."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces._errors import RefusedError, RepriseError, UsageError
from traces.cli import Command, Parser, debugging, emit_json, say

if TYPE_CHECKING:
    from recorder.api import Result
    from recorder.invocation import Invocation
    from recorder.source import Source

# -- options -------------------------------------------------------------------------------------------------------------


class _Invoke(argparse.Action):
    """`--invoke EXPORT`: begins a call that `--arg` adds to."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        namespace.calls = [*(namespace.calls or []), [values]]


class _Arg(argparse.Action):
    """`--arg VALUE`: one more argument of the newest call."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        if not namespace.calls:
            parser.error("--arg stands before any --invoke; name the export first")
        namespace.calls[-1].append(values)


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def size(text: str) -> int:
    """`65536`, `64K`, `64KiB`, `2G`: bytes."""
    number = text.lower().removesuffix("ib").removesuffix("b")
    unit = number[-1:] if number[-1:] in ("k", "m", "g") else ""
    try:
        return int(number.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write bytes, or 64K, 512M, 2G") from None


def _note(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value


def _declare_run(parser: Parser) -> None:
    add = parser.add_argument
    add("--dir", metavar="HOST::GUEST[::ro]", action="append", default=[], help="a directory the guest may use")
    add("--env", metavar="K[=V]", action="append", default=[], help="an environment variable; K alone takes its value from yours")
    add("--stdin", metavar="FILE", type=Path, help="standard input; by default yours is passed on")
    add("--invoke", metavar="EXPORT", action=_Invoke, dest="calls", help="call this export instead of _start; may be repeated")
    add("--arg", metavar="V", action=_Arg, help="an argument of that call: a number, 0x… raw bits, nan:0x…, or @FILE for bytes")
    add("--fuel", metavar="N", type=int, help="stop after N of the guest's instructions")
    add("--max-memory", metavar="SIZE", type=size, help="no memory grows beyond SIZE: 64K, 512M, 2G")
    add("--timeout", metavar="S", type=float, help="stop after S seconds")
    add("--host", metavar="PKG.MOD:NAME", action="append", default=[], help="a Python object that serves imports")
    add("--json", action="store_true", help="print what happened as JSON, after the guest's own output")


def _declare_record(parser: Parser) -> None:
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="the trace to make (default: NAME-TIME.trace)")
    _declare_run(parser)
    parser.add_argument("--note", metavar="K=V", type=_note, action="append", default=[], help="kept in the manifest")
    parser.add_argument("--durable", action="store_true", help="sync before each outgoing effect: survives power loss")


# -- record and run ------------------------------------------------------------------------------------------------------


def _record(args: argparse.Namespace) -> int:
    from recorder import api
    from recorder.invocation import looks_like_key
    from recorder.recording import Options

    source = api.source_of(args.module)
    invocation = _invocation(source, args)
    for name, value in invocation.env:
        if looks_like_key(name, value):
            say(f"warning: --env {name} looks like a key, and the trace will hold it; let a Python host hold it instead")
    options = Options(
        out=args.output,
        invocation=invocation,
        hosts=_hosts(args.host),
        host_names=tuple(args.host),
        limits=api.limits(args.fuel, args.timeout, args.max_memory),
        notes=dict(args.note),
        durable=args.durable,
        command_line=tuple(sys.argv),
        signals=True,
    )
    recorded = api.follow(source, options)
    _say_results(recorded.calls)
    outcome = recorded.outcome
    say(f"{outcome.line}; {recorded.events:,} events; trace {recorded.path}")
    if args.json:
        emit_json(
            "recording/1",
            trace=str(recorded.path),
            outcome=_outcome(outcome),
            results=[_result(call) for call in recorded.calls],
            events=recorded.events,
        )
    return outcome.exit_code


def _run(args: argparse.Namespace) -> int:
    from recorder import api

    source = api.source_of(args.module)
    limits = api.limits(args.fuel, args.timeout, args.max_memory)
    ran = api.follow_native(source, _invocation(source, args), _hosts(args.host), limits, signals=True)
    _say_results(ran.calls)
    if ran.outcome.kind not in ("returned", "exit"):
        say(ran.outcome.line)
    if args.json:
        emit_json("run/1", outcome=_outcome(ran.outcome), results=[_result(call) for call in ran.calls])
    return ran.outcome.exit_code


def _invocation(source: Source, args: argparse.Namespace) -> Invocation:
    from recorder.api import preopen
    from recorder.invocation import Call, Invocation

    return Invocation(
        argv=(source.name, *args.args),
        env=tuple(_variable(text) for text in args.env),
        preopens=tuple(preopen(host, guest or host) for host, _, guest in (text.partition("::") for text in args.dir)),
        stdin=args.stdin,
        calls=tuple(Call(name, tuple(given)) for name, *given in args.calls or ()),
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--env {text}: the variable's name is empty; write --env NAME=VALUE")
    if equals:
        return name, value
    if name not in os.environ:
        raise UsageError(f"--env {name}: is not set in your environment; write --env {name}=VALUE")
    return name, os.environ[name]


def _outcome(outcome: Any) -> dict[str, Any]:
    names = ("kind", "exit_code", "message", "code", "clock", "inside")
    return {name: getattr(outcome, name) for name in names}


def _result(call: Result) -> dict[str, Any]:
    shown = zip(call.types, call.raw, call.values, strict=True)
    return {
        "export": call.export,
        "types": list(call.types),
        "values": [_text(value) if t in ("f32", "f64", "v128") else value for t, _, value in shown],
        "raw": [hex(bits) for bits in call.raw],
    }


def _text(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else hex(value)


def _say_results(calls: Sequence[Result]) -> None:
    for call in calls:
        pairs = zip(call.types, call.values, strict=True)
        shown = [_text(v) if t in ("f32", "f64", "v128") else str(v) for t, v in pairs]
        say(f"{call.export} → {', '.join(shown) or 'nothing'}")


# -- hosts ---------------------------------------------------------------------------------------------------------------


def _hosts(names: Sequence[str]) -> tuple[Any, ...]:
    """The objects that `--host` options name, with the current directory on the path."""
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return tuple(_host(name) for name in names)


def _host(name: str) -> Any:
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise UsageError(f"--host {name}: write PKG.MOD:NAME, an object in an importable module")
    found = _guarded(name, f"importing {module_name}", lambda: _import(name, module_name))
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise RefusedError(f"--host {name}: {module_name} has no {path!r}; name an object that stands there") from None
    if isinstance(found, type):
        return _guarded(name, f"making {path}()", found)
    return found


def _import(name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise RefusedError(
                f"--host {name}: there is no module {module_name!r}; run from the directory that holds it, or install it"
            ) from None
        raise


def _guarded(name: str, doing: str, work: Callable[[], Any]) -> Any:
    """Runs the user's code; whatever it raises becomes one line."""
    try:
        return work()
    except RepriseError:
        raise
    except (Exception, SystemExit) as error:
        if debugging():
            raise
        raise RefusedError(
            f"--host {name}: {doing} raised {type(error).__name__}: {error}; REPRISE_DEBUG=1 shows the traceback"
        ) from None


def _demo(args: argparse.Namespace) -> int:
    demo = importlib.import_module("recorder.demo")
    code: int = demo.main(args.args)
    return code


_USAGE = "reprise %s [OPTIONS] MODULE [ARGS…]"

COMMANDS = (
    Command("record", "Record", "run a module and record all that crosses its boundary", _record, _declare_record,
            _USAGE % "record", ends_at_module=True),
    Command("run", "Record", "the same without recording", _run, _declare_run, _USAGE % "run", ends_at_module=True),
    Command("demo", "Test", "a tour: an incident is recorded, replayed and looked at", _demo, passes_arguments=True),
)  # fmt: skip
