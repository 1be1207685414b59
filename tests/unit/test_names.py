"""Names: demangling against the tools of the compilers' own projects, and finding functions by what people type."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.wasm.binary import custom_section, name, uleb, vec
from recorder.wasm.module import Module, parse_module
from replayer.demangle import MAX_OUTPUT, MAX_SYMBOL, demangle
from replayer.names import Names, _without_arguments
from traces._errors import UsageError

CPP = {
    "_Z3fooi": "foo(int)",
    "_Z4mainv": "main()",
    "_ZN3foo3barEv": "foo::bar()",
    "_ZNK3Foo3getERKSs": "Foo::get(std::string const&) const",
    "_ZN3FooC1Ei": "Foo::Foo(int)",
    "_ZN3FooD2Ev": "Foo::~Foo()",
    "_ZNSsC2ERKSs": "std::basic_string<char, std::char_traits<char>, std::allocator<char>>::basic_string(std::string const&)",
    "_Z3maxIiET_S0_S0_": "int max<int>(int, int)",
    "_ZNSt6vectorIiSaIiEE9push_backERKi": "std::vector<int, std::allocator<int>>::push_back(int const&)",
    "_ZNSt3__26vectorIiNS_9allocatorIiEEE9push_backB8ne190000EOi": (
        "std::__2::vector<int, std::__2::allocator<int>>::push_back[abi:ne190000](int&&)"
    ),
    "_ZlsRSoRK3Foo": "operator<<(std::ostream&, Foo const&)",
    "_Z1fPFviEPA3_i": "f(void (*)(int), int (*) [3])",
    "_Z1fM3FooFivEMS_i": "f(int (Foo::*)(), int Foo::*)",
    "_Z1fIJidEEvDpT_": "void f<int, double>(int, double)",
    "_Z1fIJEEvDpT_": "void f<>()",
    "_ZN12_GLOBAL__N_13fooEv": "(anonymous namespace)::foo()",
    "_ZZ4mainENKUliE_clEi": "main::'lambda'(int)::operator()(int) const",
    "_ZZ1fvE1x": "f()::x",
    "_ZTV3Foo": "vtable for Foo",
    "_ZTI3Foo": "typeinfo for Foo",
    "_ZThn16_N3Foo3barEv": "non-virtual thunk to Foo::bar()",
    "_ZGVZ1fvE1x": "guard variable for f()::x",
    "_Z1fILb1ELi5ELj7ELc65EEvv": "void f<true, 5, 7u, (char)65>()",
    "_ZN3FoocvbEv": "Foo::operator bool()",
    "_Z1fRKNSt4pairIiPKcEE": "f(std::pair<int, char const*> const&)",
    "_ZNKR3Foo3barEv": "Foo::bar() const &",
    "_ZN1AILi3EEC2Ev": "A<3>::A()",
    "_ZnwmSt11align_val_t": "operator new(unsigned long, std::align_val_t)",
    "_Z1fDv4_f": "f(float vector[4])",
    "_Z3fooi.isra.0": "foo(int) (.isra.0)",
    "_Z1fIiEDTcl1gfp_EET_": "decltype(g(fp)) f<int>(int)",
}
RUST = {
    "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE": "core::fmt::Write::write_fmt",
    "_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE": "<&T as core::fmt::Debug>::fmt",
    "_ZN5alloc3vec16Vec$LT$T$C$A$GT$4push17h0123456789abcdefE": "alloc::vec::Vec<T,A>::push",
    "_RNvCs15kBYyAo9fc_7mycrate4main": "mycrate::main",
    "_RNvMs_Cs4Cv8Wi1oAIB_7mycrateNtB4_7Example3foo": "<mycrate::Example>::foo",
    "_RINvCs1234_7mycrate3fooReKj3_E": "mycrate::foo::<&str, 3>",
    "_RNCNvCs1234_7mycrate4mains_0B3_": "mycrate::main::{closure#1}",
    "_RINvCs1234_7mycrate1fTlSxEFUKCmEuE": 'mycrate::f::<(i32, [i64]), unsafe extern "C" fn(u32)>',
    "_RNvC4coreu10mnchen_3ya": "core::münchen",
}


def filtered(command: str, symbols: list[str]) -> list[str]:
    tool = shutil.which(command.split()[0])
    if tool is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    run = subprocess.run(
        [tool, *command.split()[1:]], input="\n".join(symbols) + "\n", capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()


def close(text: str) -> str:
    """Older tools put a space between closing brackets."""
    while "> >" in text:
        text = text.replace("> >", ">>")
    return text


@pytest.mark.parametrize(("symbol", "text"), CPP.items(), ids=list(CPP))
def test_cpp(symbol: str, text: str) -> None:
    assert demangle(symbol) == text


@pytest.mark.parametrize(("symbol", "text"), RUST.items(), ids=list(RUST))
def test_rust(symbol: str, text: str) -> None:
    assert demangle(symbol) == text


def test_llvms_own_tool_says_the_same_of_cpp() -> None:
    symbols = [symbol for symbol in CPP if "isra" not in symbol]
    assert [close(text) for text in filtered("llvm-cxxfilt", symbols)] == [demangle(symbol) for symbol in symbols]


def test_binutils_says_the_same_of_rust() -> None:
    symbols = list(RUST)
    theirs = [re.sub(r"\[[0-9a-f]+\]|: usize|::h[0-9a-f]{16}$", "", text) for text in filtered("c++filt -s rust", symbols)]
    assert theirs == [demangle(symbol) for symbol in symbols]


def test_signatures_can_be_left_out() -> None:
    short = {symbol: demangle(symbol, signature=False) for symbol in CPP}
    assert short["_Z3maxIiET_S0_S0_"] == "max<int>"
    assert short["_ZNK3Foo3getERKSs"] == "Foo::get"
    assert short["_ZZ4mainENKUliE_clEi"] == "main::'lambda'(int)::operator()"
    assert short["_ZThn16_N3Foo3barEv"] == "non-virtual thunk to Foo::bar()"
    assert short["_ZTV3Foo"] == "vtable for Foo"


@pytest.mark.parametrize(
    "symbol", ["", "main", "_Z", "_R", "_ZN", "_ZNE", "_Z3fo", "_RNvC", "_ZQ", "_Z1fi!", "Z3fooi", "_Zé", "_Z9999999999a"]
)
def test_what_is_not_mangled_stays(symbol: str) -> None:
    assert demangle(symbol) == symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "_Z1f" + "P" * 5000 + "i",
        "_Z1f" + "".join(f"1{chr(97 + at % 26)}IS{'' if at == 0 else at - 1}_E" for at in range(200)),
        "_Z1fI" * 500,
        "_ZN" + "1aI" * 600,
        "_Z1f1aI" + "".join(f"S{'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ'[at % 30]}_" * 8 for at in range(100)) + "E",
        "_Z1fIJ" + "i" * 1000 + "EEv" + "FDpT_" * 30,
        "_RI" * 2000,
        "_RNvC1a1b" + "TB0_" * 900,
        "_RIC1aT" + "".join("T" + f"B{at}_" * 4 + "E" for at in range(6)) * 30 + "EE",
        "_R" + "Y" * 4000,
        "_RINvC1a1bFG" + "z" * 300 + "_EuE",
        "_ZN" + "1a" * 4000 + "17h0123456789abcdefE",
        "_Z" + "9" * 7000,
        "_Z1f" + "i" * MAX_SYMBOL,
    ],
)  # fmt: skip
def test_hostile_symbols_cost_little(symbol: str) -> None:
    assert len(demangle(symbol)) <= max(len(symbol), MAX_OUTPUT + 100)


def test_text_does_not_grow_without_bound() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    symbol = "_Z1f1aIiiE"  # substitutions 0 and 1: a, a<int, int>
    for at in range(1, 30):  # each list of arguments holds the one before twice
        symbol += f"S_IS{digits[at - 1]}_S{digits[at - 1]}_E"
        if at < 4:
            assert demangle(symbol).count("int") == 2 ** (at + 2) - 2
    assert demangle(symbol) == symbol


MANGLED_LETTERS = "_ZRNSTIEKPOFJLXDABCMQGUVahijvsxyzpdtcl0123456789$."


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(MANGLED_LETTERS, max_size=80).map(lambda tail: "_Z" + tail)))
def test_any_text_is_taken(text: str) -> None:
    for symbol in (text, "_R" + text, "_ZN" + text, "_Z1f" + text):
        assert isinstance(demangle(symbol), str)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*CPP, *RUST]), st.integers(0, 200), st.sampled_from(MANGLED_LETTERS), st.booleans())
def test_damaged_symbols_are_taken(symbol: str, at: int, letter: str, cut: bool) -> None:
    at %= len(symbol)
    assert isinstance(demangle(symbol[:at] if cut else symbol[:at] + letter + symbol[at + 1 :]), str)


# --- names of a module


def module_with(names: dict[int, str], count: int = 12, extra: str = "") -> Module:
    table = vec(uleb(index) + name(text) for index, text in sorted(names.items()))
    data = bytes(wasmtime.wat2wasm(f'(module (import "env" "log" (func)) {"(func)" * (count - 1)} {extra})'))
    return parse_module(data + custom_section("name", b"\1" + uleb(len(table)) + table))


SYMBOLS = {
    1: "main",
    2: "_ZN3foo3barEv",
    3: "_ZN3foo3barEi",
    4: "_ZN5alloc3vec16Vec$LT$T$C$A$GT$4push17h0123456789abcdefE",
    5: "_Z3maxIiET_S0_S0_",
    6: "_RNvMs_Cs4Cv8Wi1oAIB_7mycrateNtB4_7Example3foo",
    7: "malloc",
    8: "_ZlsRSoRK3Foo",
    9: "_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
}
MODULE = module_with(SYMBOLS, extra='(export "run" (func 10)) (export "main_export" (func 1))')
NAMES = Names(MODULE, {11: "_Z5debugv", 1: "not used"})


@pytest.mark.parametrize(
    ("index", "shown"),
    [
        (0, "env.log"),
        (1, "main"),
        (2, "foo::bar"),
        (4, "alloc::vec::Vec<T,A>::push"),
        (5, "max<int>"),
        (10, "run"),
        (11, "debug"),
        (99, "function 99"),
    ],
)
def test_shown(index: int, shown: str) -> None:
    assert NAMES.name(index) == shown


def test_raw_and_full() -> None:
    assert (NAMES.raw(2), NAMES.full(2)) == ("_ZN3foo3barEv", "foo::bar()")
    assert Names(module_with({}, 3)).name(2) == "function 2"


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("3", [3]),
        ("#3", [3]),
        ("main", [1]),
        ("main_export", [1]),
        ("env.log", [0]),
        ("run", [10]),
        ("_ZN3foo3barEi", [3]),
        ("foo::bar(int)", [3]),
        ("foo::bar", [2, 3]),
        ("max", [5]),
        ("max<int>", [5]),
        ("int max<int>(int, int)", [5]),
        ("alloc::vec::Vec<T,A>::push", [4]),
        ("std::vec::Vec<T>::push", [4]),
        ("std::vec::Vec::push", [4]),
        ("Vec::push", [4]),
        ("push", [4]),
        ("mycrate::Example::foo", [6]),
        ("<mycrate::Example>::foo", [6]),
        ("Example::foo", [6]),
        ("operator<<", [8]),
        ("core::fmt::Debug::fmt", [9]),
        ("Debug::fmt", [9]),
        ("debug", [11]),
        ("foo::*", [2, 3]),
        ("ma*", [1, 5, 7]),
        ("*::push", [4]),
        ("  malloc ", [7]),
    ],
)
def test_found(text: str, indices: list[int]) -> None:
    assert NAMES.find(text) == indices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mallok", "there is no function 'mallok': did you mean malloc?"),
        ("foo::baz", "there is no function 'foo::baz': did you mean foo::bar, foo::bar(), foo::bar(int)?"),
        ("pusch", "there is no function 'pusch': did you mean alloc::vec::Vec<T,A>::push?"),
        ("12", "there is no function 12: the module has 12"),
        ("#99999999999", "there is no function 99999999999: the module has 12"),
        ("zzzzzz*", "there is no function 'zzzzzz*'"),
        ("", "there is no function ''"),
    ],
)
def test_not_found(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        NAMES.find(text)
    assert str(caught.value) == message


def test_hostile_names_are_escaped() -> None:
    names = Names(module_with({1: "a\x1b[2Jb\nc", 2: "x" * 5000}))
    assert names.name(1) == "a\\x1b[2Jb\\nc"
    assert names.find("a\\x1b[2Jb\\nc") == names.find(names.raw(1)) == [1]
    assert len(names.name(2)) < 300
    with pytest.raises(UsageError) as caught:
        names.find("a\x1b[2K")
    assert str(caught.value).isprintable()


@given(st.text("<>ab:(),-=&* s", max_size=40))
def test_any_name_loses_its_arguments_without_complaint(text: str) -> None:
    _without_arguments(text)
    try:
        NAMES.find(text)
    except UsageError as error:
        assert str(error).isprintable()


def test_a_name_full_of_stars_costs_little() -> None:
    names = Names(module_with({1: "a" * 4000}))
    assert names.find("*a" * 500 + "*") == [1]
