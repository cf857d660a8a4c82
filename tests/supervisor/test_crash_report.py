"""Reports of crashes: what each runtime writes, found, shortened, and with the same key for the same crash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smtpbench.supervisor.crash_report import CrashReport, find_crash_report

#: Reports that real programs wrote, by the name of their file in `crash_reports`: their summary and their frames.
RECORDED = {
    "address-sanitizer-segv": ("AddressSanitizer: SEGV in deref", ["deref", "main"]),
    "address-sanitizer": ("AddressSanitizer: heap-buffer-overflow in parse_rcpt", ["parse_rcpt", "handle_line", "main"]),
    "assertion": ('assertion: Assertion `n > 5 && "length"\' failed in parse_header', ["parse_header"]),
    "c-backtrace": ("stack trace: Caught signal SIGSEGV, crashing", ["h", "parse_line", "main"]),
    "cpp-exception": (
        "C++ exception: std::out_of_range: basic_string::at: __n (which is 5) >= this->size() (which is 1)",
        [],
    ),
    "elixir-exception": (
        "Elixir exception: RuntimeError: bad y in S.parse/1",
        ["S.parse/1", "S.handle_call/3", "Code.require_file/2"],
    ),
    "erlang-boot": (
        "Erlang crash: init terminating in do_boot ({undef,[{m,nofun,[],[]},{init,start_em,1,[]},{init,do_boot,3,[]}]})",
        [],
    ),
    "erlang-crash": ("Erlang crash: error: no match of right hand side value 8 in m:f/1", ["m:f/1"]),
    "glibc-double-free": ("glibc abort: double free or corruption (!prev)", []),
    "glibc-stack-smashing": ("glibc abort: stack smashing detected", []),
    "go-deadlock": ("Go panic: fatal error: all goroutines are asleep - deadlock! in main.wait", ["main.wait", "main.main"]),
    "go-panic-again": (
        "Go panic: runtime error: invalid memory address or nil pointer dereference in main.handle",
        ["main.handle", "main.main"],
    ),
    "go-panic": (
        "Go panic: runtime error: index out of range [7] with length 2 in main.(*Session).handle",
        ["main.(*Session).handle", "main.serve", "main.main.func1"],
    ),
    "java-exception": (
        "Java exception: java.lang.IllegalStateException: bad address in C.parse",
        ["C.parse", "C.serve", "C.lambda$main$0"],
    ),
    "java-fatal-error": ("JVM fatal error: SIGSEGV in Unsafe_PutLong", ["Unsafe_PutLong"]),
    "java-out-of-memory": ("Java exception: java.lang.OutOfMemoryError: Java heap space in O.main", ["O.main"]),
    "leak-sanitizer": ("LeakSanitizer: detected memory leaks in save_header", ["save_header", "main"]),
    "node-exception": (
        "Node exception: ReferenceError: undefined_thing is not defined in Session.onData",
        ["Session.onData", "serve", "Object.<anonymous>"],
    ),
    "node-out-of-memory": ("V8 fatal error: Reached heap limit Allocation failed - JavaScript heap out of memory", []),
    "node-rejection": ("Node exception: TypeError: bad address in h", ["h", "Object.<anonymous>"]),
    "perl-confess": ("Perl die: bad address in main::parse", ["main::parse", "main::serve"]),
    "perl-die": ("Perl die: bad address", []),
    "php-error": ("PHP fatal error: Uncaught Error: Call to undefined function nofunc()", []),
    "php-exception": ("PHP fatal error: Uncaught Exception: bad address in S->parse", ["S->parse", "serve"]),
    "python-chained": ("Python traceback: ValueError: bad line 'x' in p.handle", ["p.handle", "p.main", "p.<module>"]),
    "python-exception-group": ("Python traceback: ValueError: x in grp.a", ["grp.a"]),
    "python-fault": (
        "Python fatal error: Segmentation fault in ctypes.string_at",
        ["ctypes.string_at", "fh.parse", "fh.<module>"],
    ),
    "python-recursion": (
        "Python traceback: RecursionError: maximum recursion depth exceeded in rec.f",
        ["rec.f", "rec.<module>"],
    ),
    "ruby-exception": ("Ruby exception: bad address (ArgumentError) in parse", ["parse", "serve", "<main>"]),
    "ruby-segmentation-fault": ("Ruby fatal error: Segmentation fault in <main>", ["<main>"]),
    "rust-panic-full": (
        "Rust panic: index out of bounds: the len is 2 but the index is 7 in r::session::parse",
        ["r::session::parse", "r::handle", "r::main"],
    ),
    "rust-panic": (
        "Rust panic: index out of bounds: the len is 2 but the index is 7 in r::session::parse",
        ["r::session::parse", "r::handle", "r::main"],
    ),
    "rust-stack-overflow": ("Rust panic: overflowed its stack", []),
    "thread-sanitizer": ("ThreadSanitizer: data race in main", ["main"]),
    "undefined-behavior-sanitizer": (
        "UndefinedBehaviorSanitizer: signed integer overflow: 1 + 2147483647 cannot be represented in type 'int' in add",
        ["add", "main"],
    ),
}
#: Reports in the formats that manuals show, with their summary and their frames.
WRITTEN = {
    "crash without frames": (
        "==1==ERROR: AddressSanitizer: heap-buffer-overflow in parse_rcpt",
        "AddressSanitizer: heap-buffer-overflow in parse_rcpt",
        [],
    ),
    "memory sanitizer": (
        """\
==12==WARNING: MemorySanitizer: use-of-uninitialized-value
    #0 0x4c6b2a in check /src/ms.c:2:25
    #1 0x4c6bb1 in main /src/ms.c:3:48
    #2 0x7f8a1b23dd09 in __libc_start_main csu/../csu/libc-start.c:308:16

SUMMARY: MemorySanitizer: use-of-uninitialized-value /src/ms.c:2:25 in check""",
        "MemorySanitizer: use-of-uninitialized-value in check",
        ["check", "main"],
    ),
    "C++ names": (
        """\
==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000018 at pc 0x4c6b2a bp 0x7ffc sp 0x7ffd
WRITE of size 17 at 0x602000000018 thread T0
    #0 0x493a4c in strcpy (/src/asan+0x493a4c)
    #1 0x4c6b2a in (anonymous namespace)::Session::parse(std::vector<int, Pool<int> > const&, int) const /src/a.cc:4:3
    #2 0x4c6bb1 in std::vector<int, std::allocator<int> >::at(unsigned long) /usr/include/c++/12/bits/stl_vector.h:1
    #3 0x4c6bb1 in smtp::Server<smtp::Plain>::operator()() /src/s.cc:1:1""",
        "AddressSanitizer: heap-use-after-free in (anonymous namespace)::Session::parse",
        ["(anonymous namespace)::Session::parse", "smtp::Server::operator()"],
    ),
    "program without symbols": (
        """\
==1==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000000 (pc 0x55d1 bp 0x7ffc sp 0x7ffc T0)
    #0 0x55d1c1a0  (/usr/sbin/smtpd+0x11a0)
    #1 0x55d1c1b0  (/usr/sbin/smtpd+0x11b0)  (BuildId: 1234abcd)""",
        "AddressSanitizer: SEGV in (smtpd+0x11a0)",
        ["(smtpd+0x11a0)", "(smtpd+0x11b0)"],
    ),
    "summary alone": (
        "SUMMARY: AddressSanitizer: stack-overflow /src/a.c:4:3 in parse",
        "AddressSanitizer: stack-overflow in parse",
        ["parse"],
    ),
    "valgrind": (
        """\
==12== Invalid write of size 1
==12==    at 0x48: strcpy (vg_replace_strmem.c:553)
==12==    by 0x10: parse_rcpt (asan.c:4)
==12==    by 0x10: main (asan.c:6)
==12==  Address 0x4a is 0 bytes after a block of size 8 alloc'd""",
        "Valgrind: Invalid write of size 1 in parse_rcpt",
        ["parse_rcpt", "main"],
    ),
    "old glibc": (
        """\
*** Error in `./smtpd': double free or corruption (!prev): 0x00000000010c2010 ***
======= Backtrace: =========
/lib/x86_64-linux-gnu/libc.so.6(+0x777e5)[0x7f52e1c8a7e5]
./smtpd(parse+0x12)[0x400612]
./smtpd(main+0x1)[0x400701]""",
        "glibc abort: double free or corruption (!prev) in parse",
        ["parse", "main"],
    ),
    "musl assertion": (
        "Assertion failed: n > 5 (asrt.c: parse_header: 2)",
        "assertion: Assertion failed: n > 5 in parse_header",
        ["parse_header"],
    ),
    "libc++": (
        "libc++abi: terminating due to uncaught exception of type std::out_of_range: vector",
        "C++ exception: std::out_of_range: vector",
        [],
    ),
    "Rust before 1.73": (
        "thread 'main' panicked at 'index out of bounds', src/main.rs:5:3\nnote: run with `RUST_BACKTRACE=1`",
        "Rust panic: index out of bounds",
        [],
    ),
    "HTTP server's Go package names": (
        """\
fatal error: concurrent map writes

goroutine 7 [running]:
example.org/mail/smtp.(*Session).Handle(0xc000, {0x1, 0x2})
\t/src/smtp.go:5 +0x1d
created by example.org/mail/smtp.Serve in goroutine 1
\t/src/smtp.go:9 +0x1d""",
        "Go panic: fatal error: concurrent map writes in smtp.(*Session).Handle",
        ["smtp.(*Session).Handle"],
    ),
    "java logger": (
        """\
org.example.mail.BadAddress: no mailbox
\tat app//org.example.mail.Session.handle(Session.java:12)
\tat java.base/java.lang.Thread.run(Thread.java:840)""",
        "Java exception: org.example.mail.BadAddress: no mailbox in Session.handle",
        ["Session.handle"],
    ),
    ".NET": (
        """\
Unhandled exception. System.InvalidOperationException: bad address
 ---> System.ArgumentException: inner
   at Mail.Session.Parse(String line) in /src/Session.cs:line 12
   --- End of inner exception stack trace ---
   at Mail.Session.Handle(String line) in /src/Session.cs:line 20
   at System.Threading.Tasks.Task.Execute()
   at Mail.Program.Main(String[] args) in /src/Program.cs:line 5""",
        ".NET exception: System.InvalidOperationException: bad address in Mail.Session.Parse",
        ["Mail.Session.Parse", "Mail.Session.Handle", "Mail.Program.Main"],
    ),
    "OCaml": (
        """\
Fatal error: exception Failure("bad address")
Raised at Stdlib.failwith in file "stdlib.ml", line 29, characters 17-33
Called from Smtp.parse in file "smtp.ml", line 3, characters 5-20""",
        'OCaml exception: Failure("bad address") in Stdlib.failwith',
        ["Stdlib.failwith", "Smtp.parse"],
    ),
    "Haskell, which is not in the table": (
        """\
smtpd: Prelude.head: empty list
CallStack (from HasCallStack):
  error, called at libraries/base/GHC/List.hs:1646:3 in base:GHC.List
  errorEmptyList, called at libraries/base/GHC/List.hs:85:11 in base:GHC.List""",
        "stack trace: smtpd: Prelude.head: empty list in error",
        ["error", "errorEmptyList"],
    ),
    "Lua, which is not in the table": (
        """\
lua: smtp.lua:3: bad address
stack traceback:
\t[C]: in function 'error'
\tsmtp.lua:3: in function 'parse'
\tsmtp.lua:7: in main chunk""",
        "stack trace: lua: smtp.lua:3: bad address in error",
        ["error", "parse"],
    ),
    "Zig, which is not in the table": (
        """\
thread 1234 panic: index out of bounds: index 7, len 2
/src/x.zig:3:13: 0x1034b2f in parse (x)
    return a[i];
            ^
/src/x.zig:9:5: 0x1034a1e in main (x)""",
        "stack trace: thread 1234 panic: index out of bounds: index 7, len 2 in parse",
        ["parse", "main"],
    ),
    "Dart, which is not in the table": (
        """\
Unhandled exception:
Exception: bad address
#0      parse (file:///src/x.dart:2:3)
#1      main (file:///src/x.dart:5:3)""",
        "stack trace: Exception: bad address in parse",
        ["parse", "main"],
    ),
    "debugger": (
        """\
Program received signal SIGSEGV, Segmentation fault.
#0  0x0000555555555131 in on_crash (number=11) at a.c:9
#1  <signal handler called>
#2  0x0000555555555131 in parse (p=0x0) at a.c:1
#3  0x0000555555555150 in main () at a.c:2""",
        "stack trace: Program received signal SIGSEGV, Segmentation fault. in parse",
        ["parse", "main"],
    ),
    "last line of a log": (
        "Nov 25 22:10:25 host postfix/smtpd[12]: connect from unknown\n"
        "Nov 25 22:10:25 host postfix/smtpd[12]: panic: myfree: corrupt or unallocated memory block",
        "panic: myfree: corrupt or unallocated memory block",
        [],
    ),
}


def recorded(name: str) -> str:
    return (Path(__file__).parent / "crash_reports" / f"{name}.txt").read_text(encoding="utf-8")


def every_report() -> dict[str, str]:
    return {name: recorded(name) for name in RECORDED} | {name: text for name, (text, _, _) in WRITTEN.items()}


def find(text: str, signal_number: int | None = None) -> CrashReport:
    report = find_crash_report(text.splitlines(), signal_number)
    assert report is not None
    return report


@pytest.mark.parametrize("name", RECORDED)
def test_report_of_a_real_program_is_summed_up(name: str) -> None:
    report = find(recorded(name))
    assert (report.summary, list(report.frames)) == RECORDED[name]


@pytest.mark.parametrize("name", WRITTEN)
def test_report_in_a_documented_format_is_summed_up(name: str) -> None:
    text, summary, frames = WRITTEN[name]
    report = find(text)
    assert (report.summary, list(report.frames)) == (summary, frames)
    assert report.summary.startswith(report.kind)


def elsewhere(text: str) -> str:
    """Return a report as the same crash of another process would write it."""
    text = re.sub(r"(?<!\+)\b0x[0-9a-f]+", lambda found: f"0x7e57{found[0][3:]}", text)
    text = re.sub(
        r"==\d+==|pid=\d+|\[\d+:0x|thread 'main' \(\d+\)", lambda found: re.sub(r"\d+", "777", found[0], count=1), text
    )
    return re.sub(
        r"(\.\w+:\d+):\d+(?=[\s)])|( line )\d+", lambda found: f"{found[1]}:99" if found[1] else f"{found[2]}99", text
    )


@pytest.mark.parametrize("name", [*RECORDED, *WRITTEN])
def test_same_crash_at_another_address_has_the_same_key(name: str) -> None:
    text = every_report()[name]
    assert find(elsewhere(text)).key == find(text).key


@pytest.mark.parametrize("name", [*RECORDED, *WRITTEN])
def test_key_has_no_addresses(name: str) -> None:
    assert not re.search(r"(?<!\+)0x[0-9a-f]{3}", find(every_report()[name]).key)


@pytest.mark.parametrize(
    "prefix",
    [
        "Nov 25 22:10:{:02} host smtpd[12]: ",
        "2026-11-25T22:10:{:02}.123+01:00 ",
        "2026/11/25 22:10:{:02} ",
        "smtpd-1  | ",
        "<11>",
    ],
)
@pytest.mark.parametrize("name", RECORDED)
def test_what_a_log_writes_before_each_line_does_not_matter(name: str, prefix: str) -> None:
    text = recorded(name)
    lines = [prefix.format(number % 60) + line for number, line in enumerate(text.splitlines())]
    assert find("\n".join(lines)).key == find(text).key


@pytest.mark.parametrize("name", RECORDED)
def test_report_is_found_among_other_output(name: str) -> None:
    text = recorded(name)
    other = [f"info: session {number} from 127.0.0.1: 250 ok" for number in range(50)]
    assert find("\n".join([*other, "", *text.splitlines(), "smtpd: ended", "Aborted (core dumped)"])).key == find(text).key


def test_colours_do_not_matter() -> None:
    text = "\n".join(f"\x1b[1m\x1b[31m{line}\x1b[1m\x1b[0m" for line in recorded("address-sanitizer").splitlines())
    assert find(text).key == find(recorded("address-sanitizer")).key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sink: listening on 127.0.0.1:2525\nerror: no such user\nwarning: fatal\n  listening (ok)\n",
        "info: exception list loaded\n  1: alice\n",
        "warned at smtp.pl line 12.\n" + "250 ok\n" * 9,
        "the previous panic: none\n" + "250 ok\n" * 9,
        "goroutine 1 [running]:\n",
        "Subject: Traceback\n",
    ],
)
def test_ordinary_output_is_no_report(text: str) -> None:
    assert find_crash_report(text.splitlines()) is None


def test_last_report_counts() -> None:
    assert find(recorded("go-panic") + recorded("address-sanitizer")).kind == "AddressSanitizer"
    assert find(recorded("address-sanitizer") + recorded("go-panic")).kind == "Go panic"


def test_report_that_ends_the_process_counts_before_a_later_exception() -> None:
    assert find(recorded("address-sanitizer") + recorded("python-chained")).kind == "AddressSanitizer"


@pytest.mark.parametrize(("signal_number", "found"), [(None, True), (6, True), (9, False), (11, False)])
def test_exception_does_not_explain_a_signal_of_others(signal_number: int | None, found: bool) -> None:
    lines = ("ERROR unhandled exception in handler\n" + recorded("python-chained")).splitlines()
    assert (find_crash_report(lines, signal_number) is not None) is found
    assert find(recorded("python-fault"), signal_number).kind == "Python fatal error"


def test_numbers_that_depend_on_the_input_are_no_part_of_the_key() -> None:
    first, second = (find(f"thread 'main' panicked at x.rs:1:2:\nlen is 2, index is {index}") for index in (7, 8))
    assert first.summary == "Rust panic: len is 2, index is 7"
    assert first.key == second.key


def test_lines_worth_quoting_are_the_cause_and_the_top_frames() -> None:
    assert find(recorded("address-sanitizer")).lines == (
        "==7306==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000018 at pc 0x7fc68c6602ca "
        "bp 0x7ffffbe4e900 sp 0x7ffffbe4e0b0",
        "    #1 0x556e923111c5 in parse_rcpt /src/asan.c:4",
        "    #2 0x556e923111e3 in handle_line /src/asan.c:5",
        "    #3 0x556e92311240 in main /src/asan.c:6",
    )


def test_data_of_a_report_is_escaped_and_complete() -> None:
    data = find("==1==ERROR: AddressSanitizer: bad \x1b]0;title\x07 in f\n").to_data()
    assert data["summary"] == r"AddressSanitizer: bad \x1b]0;title\x07 in f"
    assert set(data) == {"kind", "summary", "frames", "lines"}


@pytest.mark.parametrize("unit", ["(", "1:", "a.b", "/", "{", "x(", "a<", " ", ":1 ", "#0 in (a", "fatal error: "])
def test_hostile_lines_are_cut_before_they_are_searched(unit: str) -> None:
    lines = [f"Traceback (most recent call last): {unit * 100_000}", f"  at {unit * 100_000}"] * 5
    report = find_crash_report(lines)
    assert report is None or len(report.summary) <= 200
