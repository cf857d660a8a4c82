"""The formats in which sanitizers, C libraries and the runtimes of languages report a crash, as a table.

A format says how a report starts, which lines are its frames, and where the cause is said. `crash_report` reads the reports
with it. The last two formats are for programs that nobody listed: a line with a fatal word that frames follow, and a last
line that says `panic:` or `fatal:`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from re import Pattern
from typing import Final


class Effect(Enum):
    """What a report means for the process that wrote it."""

    #: It ends the process.
    ENDS = "ends"
    #: The process may go on.
    MAY_END = "may end"
    #: The process may go on. If it does not, it exits or aborts: the report is no cause of any other signal.
    MAY_EXIT = "may exit"


@dataclass(frozen=True, slots=True)
class CrashFormat:
    """How a report is written.

    Attributes:
        kind: What writes it. The group `kind` of `head` is used instead, where it has one.
        head: First line. Group `what` is the cause, with group `message` after it, and group `function` the innermost frame.
            A number may follow the name of a group, so that each alternative of a pattern has its own.
        anywhere: Whether something may stand before it in its line, such as the name of a program.
        frame: A frame. Group `function` is its function, group `place` a file or module.
        detail: A later line: its group `what` is the cause, if the head does not say it, and its group `message` adds to it.
        stack: The line after which the frames start; None if they follow the head.
        confirmed_by: A line that must follow; None if the head is enough.
        confirmed_within: Number of lines among which `confirmed_by` must be.
        outermost_first: Whether the innermost frame is the last.
        named_by_place: Whether the names of functions need the name of their file.
        guess: Whether it fits many programs, so that any other format is preferred on the next lines, too.
        effect: What it means for the process.
        repeats: Whether it repeats what a report before it says, if there is one.
        at_the_end: Whether it counts among the last lines only, because any log has such lines.
    """

    kind: str
    head: Pattern[str]
    anywhere: bool = False
    frame: Pattern[str] | None = None
    detail: Pattern[str] | None = None
    stack: Pattern[str] | None = None
    confirmed_by: Pattern[str] | None = None
    confirmed_within: int = 1
    outermost_first: bool = False
    named_by_place: bool = False
    effect: Effect = Effect.ENDS
    repeats: bool = False
    guess: bool = False
    at_the_end: bool = False


def _lines(*patterns: str) -> Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


#: `#0 0x55d in parse /src/a.c:4:3`, `#0 parse a.c:4 (prog+0x1242)`, `#1  0x7f in parse (x=1) at a.c:3` (gdb),
#: `#0 0x7f (/lib/x.so+0x1)`.
_NUMBERED_FRAME: Final = re.compile(
    r"\s*#\d+\s+(?:0x[0-9a-f]+\s+)?(?:in\s+)?"
    r"(?:\((?P<place>[^()\s]+)\+(?P<offset>0x[0-9a-f]+)\)|"
    r"(?P<function>\S.*?)(?:\s+(?:\(\S+\+\s*0x[0-9a-f]+\)|at \S+:\d+|\S*:\d+|<null>).*)?)(?:\s+\(BuildId: \w+\))?$"
)
_JVM_FRAME: Final = re.compile(r"\s*at (?:[\w.$@-]*/)*(?:[a-z_]\w*\.)*(?P<function>[\w$<>]+\.[\w$<>]+)\(")
_NODE_FRAME: Final = re.compile(
    r"\s+at (?:async )?(?:(?P<function>[^(]+?)(?: \[as \w+\])? \(.*\)|(?:file://)?(?P<place>\S+?):\d+:\d+)$"
)
_NET_FRAME: Final = re.compile(r"\s+at (?:\w+\.)*?(?P<function>[\w`<>+|]+\.[.\w`<>|]+)(?:\[[^\]]*\])? ?\(")
#: `prog(parse+0x12) [0x55d]`: backtrace_symbols(3).
_LIBC_FRAME: Final = (
    r"\s*(?:\[\w+\] )?(?P<place>[^\s()]+)\((?P<function>\w*)(?:\+?(?P<offset>0x[0-9a-f]+))?\) ?\[0x[0-9a-f]+\]"
)
_HEAP_ERROR: Final = (
    r"(?:double free or corruption|(?:free|malloc|malloc_consolidate|realloc|calloc|munmap_chunk|mremap_chunk)\(\): |"
    r"corrupted (?:size|double-linked list)|malloc: |sysmalloc: |chunk_main_arena|tcache_)[^:]*"
)
_GOROUTINE: Final = re.compile(r"goroutine \d+.*\[.*\]:$")
_ANY_FRAME: Final = _lines(
    _LIBC_FRAME,
    r"\s*#\d+:?\s+(?:0x[0-9a-fA-F]+\s+)?(?:in\s+)?(?P<function2>[\w:.~$<>@#*-]+)",
    r"\s*\d+:\s+(?:0x[0-9a-fA-F]+\s+)?(?:-\s+)?(?P<function3>[\w:.~$<>@#*-]+)",
    r"\s+.*\bin (?:function |method )?[`'\"<](?P<function4>[\w:.~$@#*-]+)['\">]",
    r"\s+at (?P<function5>[\w:.~$<>@#*/-]+)",
    r"\s*\S+:\d+:\d+: 0x[0-9a-f]+ in (?P<function6>\S+)",
    r"(?:\s+|Called |Raised )from (?P<function7>[\w:.~$<>@#*-]+)",
    r"\s+(?P<function8>[\w:.~$<>@#*-]*[A-Za-z_][\w:.~$<>@#*-]*) ?\(",
    r"\s+(?P<function9>[\w.~$<>@#*-]+), called at ",
    r"\d+\s+\S+\s+0x[0-9a-f]+ (?P<function10>\S+)",
)
_FATAL_WORD: Final = (
    r"\b(?:panic(?:ked)?|fatal|abort(?:ed|ing)?|assert(?:ion)?|crash(?:ed)?|segmentation fault|segfault|unhandled|uncaught|"
    r"unrecoverable|stack overflow|backtrace|stack ?trace(?:back)?|traceback|call ?stack|exception|"
    r"SIG(?:SEGV|ABRT|BUS|FPE|ILL|TRAP|SYS))\b"
)

#: In the order in which they are tried on a line.
FORMATS: Final = (
    CrashFormat(
        "sanitizer",
        re.compile(r"(?:==\d+==\s*)?(?:ERROR: (?P<kind>\w+Sanitizer)|WARNING: (?P<kind2>MemorySanitizer)): (?P<what>.+)"),
        anywhere=True,
        frame=_NUMBERED_FRAME,
    ),
    CrashFormat(
        "sanitizer",
        re.compile(r"(?:==\d+==\s*)?WARNING: (?P<kind>\w+Sanitizer): (?P<what>.+)"),
        anywhere=True,
        frame=_NUMBERED_FRAME,
        effect=Effect.MAY_END,
    ),
    CrashFormat(
        "sanitizer",
        re.compile(r"SUMMARY: (?P<kind>\w+Sanitizer): (?P<what>.+?)(?: \S*:\d+\S*)?(?: in (?P<function>\S+))?$"),
        anywhere=True,
        repeats=True,
    ),
    CrashFormat(
        "sanitizer",
        re.compile(r"\b(?P<kind>\w+Sanitizer): ?(?P<what>DEADLYSIGNAL|nested bug.*|CHECK failed: .*)"),
        anywhere=True,
    ),
    CrashFormat(
        "UndefinedBehaviorSanitizer",
        re.compile(r"\S+:\d+:\d+: runtime error: (?P<what>.+)"),
        anywhere=True,
        frame=_NUMBERED_FRAME,
        effect=Effect.MAY_END,
    ),
    CrashFormat(
        "Valgrind",
        re.compile(
            r"==\d+== (?P<what>Invalid (?:read|write|free).*|Process terminating with default action of signal \d+ \(\w+\)|"
            r"Conditional jump or move depends.*|Use of uninitialised.*|Jump to the invalid address.*)"
        ),
        frame=re.compile(r"==\d+==\s+(?:at|by) 0x[0-9A-Fa-f]+: (?P<function>.+?) \([^()]*\)$"),
        effect=Effect.MAY_END,
    ),
    CrashFormat(
        "allocator",
        re.compile(r"(?:Scudo ERROR|GWP-ASan detected a memory error)\W*(?P<what>.*)"),
        anywhere=True,
        frame=_NUMBERED_FRAME,
    ),
    CrashFormat(
        "Go panic",
        _lines(r"panic: (?P<what>.+?)(?: \[recovered\])?$", r"(?P<what2>fatal error: .+|SIG[A-Z]+: .+)"),
        frame=re.compile(r"(?!created by)(?P<function>\S+)\((?:[^()]|\{.*\})*\)$"),
        stack=_GOROUTINE,
        confirmed_by=_GOROUTINE,
        confirmed_within=12,
    ),
    CrashFormat(
        "Python fatal error",
        re.compile(r"Fatal Python error: (?P<what>.+)"),
        anywhere=True,
        frame=re.compile(r'\s+File "(?P<place>[^"]*)", line \d+,? in (?P<function>\S+)'),
        stack=re.compile(r"Current thread 0x[0-9a-f]+.* \(most recent call first\):"),
        named_by_place=True,
    ),
    CrashFormat(
        "Python traceback",
        re.compile(r"(?:Exception Group )?Traceback \(most recent call last\):(?P<what>)"),
        anywhere=True,
        frame=re.compile(r'  File "(?P<place>[^"]*)", line \d+(?:, in (?P<function>\S+))?'),
        detail=re.compile(r"(?P<what>[A-Za-z_][\w.]*(?:: .*)?)$"),
        outermost_first=True,
        named_by_place=True,
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "V8 fatal error",
        re.compile(r"#?\s*(?:FATAL ERROR: |Fatal (?:JavaScript )?(?:error in |process out of memory: ))(?P<what>.+)"),
        frame=re.compile(r"\s*\d+: 0x[0-9a-f]+ (?P<function>.*?) ?\[(?P<place>[^\]]*)\]"),
    ),
    CrashFormat(
        "JVM fatal error",
        re.compile(r"# (?:(?P<what>There is insufficient memory)|A fatal error has been detected by the Java Runtime)"),
        detail=re.compile(r"#\s+(?P<what>(?:SIG|EXCEPTION_)[A-Z_]+|Internal Error|Out of Memory Error)\b"),
        stack=re.compile(r"# Problematic frame:"),
        frame=re.compile(
            r"# [A-Za-z]\s+(?:\d+ \S+ )?(?:\[(?P<place>[^\]+]+)\+(?P<offset>0x[0-9a-f]+)\]\s*)?"
            r"(?:[a-z]\w*\.)*(?P<function>\w\S*?)?(?:\+0x[0-9a-f]+)?$"
        ),
    ),
    CrashFormat(
        "Java exception",
        _lines(
            r'Exception in thread ".*" (?P<what>.+)',
            r"Exception: (?P<what2>\S+) thrown from the UncaughtExceptionHandler in thread",
        ),
        anywhere=True,
        frame=_JVM_FRAME,
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "Java exception",
        re.compile(r"(?!Caused by|Suppressed)(?P<what>(?:[a-z_]\w*\.)+[A-Z][\w$]*(?:: .*)?)$"),
        frame=_JVM_FRAME,
        confirmed_by=re.compile(r"\s+at [\w.$/@]+\("),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "Rust panic",
        _lines(
            r"thread '.*'(?: \(\d+\))? panicked at (?:'(?P<what>.*)', )?\S+:\d+:\d+:?$",
            r"thread '.*'(?: \(\d+\))? has (?P<what2>overflowed its stack)",
        ),
        anywhere=True,
        detail=re.compile(r"(?!stack backtrace:|note: )(?P<what>\S.*)"),
        frame=re.compile(r"\s*\d+:\s+(?:0x[0-9a-f]+ - )?(?P<function>\S.*)"),
        stack=re.compile(r"stack backtrace:"),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "assertion",
        _lines(
            r"(?:[^:\s]+: )?\S+?:\d+: (?P<function>.*?): (?P<what>Assertion [`'].*' failed)",
            r"(?P<what2>Assertion failed: .*?),? \((?:[^:()]*: )(?P<function2>[\w:~]+): \d+\)",
            r"(?P<what3>Assertion failed: .*?), function (?P<function3>[\w:~]+), file .*",
            r"ERROR:[^:]+:\d+:(?P<function4>[\w:~]+): (?P<what4>assertion failed.*)",
        ),
        anywhere=True,
        frame=re.compile(_LIBC_FRAME),
    ),
    CrashFormat(
        "C++ exception",
        _lines(
            r"terminate called after throwing an instance of '(?P<what>.+)'",
            r"(?P<what2>terminate called (?:without an active exception|recursively))",
            r"libc\+\+abi(?:\.dylib)?: terminating (?:due to |with )uncaught exception of type (?P<what3>.+)",
        ),
        anywhere=True,
        detail=re.compile(r"\s+what\(\):\s+(?P<message>.+)"),
    ),
    CrashFormat(
        "glibc abort",
        _lines(
            rf"\*\*\* Error in `.*': (?P<what>{_HEAP_ERROR})",
            r"\*\*\* (?P<what2>.+?) \*\*\*(?:: .*terminated)?$",
            rf"(?P<what3>{_HEAP_ERROR})$",
            r"Fatal glibc error: (?P<what4>.+)",
        ),
        frame=re.compile(_LIBC_FRAME),
    ),
    CrashFormat(
        ".NET exception",
        re.compile(r"(?:Unhandled [Ee]xception[.:]|Fatal error\.|Process terminated\.|Stack overflow\.) ?(?P<what>.*)"),
        detail=re.compile(r"(?P<what>[A-Z][\w.]+(?:Exception|Error)\b.*)"),
        frame=_NET_FRAME,
        confirmed_by=re.compile(r"\s+at (?!.*\.(?:js|ts|java|kt):\d)[^(]+\("),
        confirmed_within=6,
    ),
    CrashFormat(
        "Node exception",
        re.compile(r"(?P<what>[^\s#].*)"),
        frame=_NODE_FRAME,
        confirmed_by=re.compile(r"\s+at (?:.*\()?(?:.*[/\\:]\S+|<anonymous>|native).*:\d+:\d+\)?$"),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "Ruby fatal error",
        re.compile(r"\S+:\d+: \[BUG\] (?P<what>.+)"),
        frame=re.compile(r"\S+:\d+:in [`'](?P<function>.*)'"),
        stack=re.compile(r"-- Ruby level backtrace information"),
        outermost_first=True,
    ),
    CrashFormat(
        "Ruby exception",
        re.compile(r"\S+:\d+:in [`'](?P<function>.*?)': (?P<what>.+)"),
        anywhere=True,
        frame=re.compile(r"\s+(?:\d+: )?from \S+:\d+:in [`'](?P<function>.*)'"),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "PHP fatal error",
        re.compile(r"(?:PHP )?(?:Fatal|Parse) error:\s+(?!exception )(?P<what>.+?)(?: in \S.*:\d+| in \S+ on line \d+)?$"),
        frame=re.compile(r"#\d+ (?:\S.*?\(\d+\)|\[internal function\]): (?P<function>.+)"),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "Erlang crash",
        re.compile(r"=(?:CRASH|ERROR) REPORT====|Error in process <[\d.]+>.* with exit value:"),
        detail=_lines(r"\s+exception (?P<what>(?:error|exit|throw): .+)", r"\{+(?P<what2>[a-z_]\w*)"),
        frame=re.compile(
            r"\s+in (?:function|call from)\s+(?P<function>\S+)|.*?\{(?P<function2>\w+,[^,\s]+,\d+),\[(?=\{file|\])"
        ),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "Erlang crash",
        re.compile(r"(?P<what>(?:Runtime terminating during boot|init terminating in do_boot|Kernel pid terminated).*)"),
    ),
    CrashFormat(
        "Elixir exception",
        re.compile(r"\*\* \((?P<what>\w[\w.]*)\) (?P<message>.+)"),
        anywhere=True,
        frame=re.compile(r"\s+(?:\([\w. -]+\) )?\S+:\d+: (?P<function>\S.*)"),
        effect=Effect.MAY_EXIT,
    ),
    CrashFormat(
        "OCaml exception",
        re.compile(r"Fatal error: exception (?P<what>.+)"),
        frame=re.compile(r"(?:Raised|Called|Re-raised) (?:at|from|by primitive operation at) (?P<function>\S+) in file"),
    ),
    CrashFormat(
        "Perl die",
        re.compile(r"(?P<what>\S.*?) at \S+ line \d+(?:, <\w*> (?:line|chunk) \d+)?\.$"),
        frame=re.compile(r"\s+(?P<function>[\w:]+)\(.*\) called at \S+ line \d+"),
        effect=Effect.MAY_EXIT,
        at_the_end=True,
    ),
    CrashFormat(
        "stack trace",
        re.compile(rf"(?i:(?P<what>(?:\S.*)?{_FATAL_WORD}.*))"),
        frame=_ANY_FRAME,
        confirmed_by=_ANY_FRAME,
        confirmed_within=3,
        guess=True,
        effect=Effect.MAY_END,
    ),
    CrashFormat(
        "last message",
        re.compile(r"\b(?P<kind>panic|PANIC|fatal|FATAL)(?:[ _](?:error|ERROR))?\]?: (?P<what>.+)"),
        anywhere=True,
        effect=Effect.MAY_EXIT,
        at_the_end=True,
    ),
)

#: Functions that belong to a runtime: how it throws, aborts, reports, and starts a thread or a program.
RUNTIME_FUNCTION: Final = re.compile(
    r"(?:__?_?interceptor_|__(?:a|ub|m|t|l|hwa)san|__sanitizer|___?GI_|__libc_|__assert|__stack_chk|__fortify|__chk_fail|"
    r"__cxa_|__gxx|__gnu_cxx|__pthread|__rust|__restore_rt|_Unwind|std::|core::|alloc::|<?<?(?:std|core|alloc)::|rust_|"
    r"runtime\.|syscall\.|v8::|node::|:?proc_lib[.:]|:?gen_server[.:]|:?gen[.:]|elixir_|:elixir_)"
    r"|(?:_start|clone3?|start_thread|abort|raise|gsignal|t?g?kill|pthread_kill|panic|longjmp|fuzzer::.*|"
    r"<anonymous>|\{main\}|\(node\)|operator (?:new|delete)(?:\[\])?|malloc|calloc|realloc|free|mem(?:cpy|move|set|cmp|chr)|"
    r"str(?:n?cpy|n?cat|n?len|n?cmp|n?casecmp|r?chr|str|n?dup|tol|toul)|ato[il]|v?s?n?printf|vsnprintf|v?fprintf|"
    r"runpy\..*|threading\.(?:_bootstrap(?:_inner)?|run)|\(file\))$"
    r"|.* as (?:std|core|alloc)::"
)
#: Lines with frames that belong to a runtime.
RUNTIME_LINE: Final = re.compile(
    r"libsanitizer/|compiler-rt/|lib[a-z]+san\.|/sysdeps/|/csu/|\blibc\.so|ld-linux|node:internal|\(node:|\(internal/|"
    r"\sat (?:java\.|jdk\.|sun\.|javax\.|java\.base/|jdk\.[a-z.]+/)|\sat System\.|File \"<frozen "
)
#: Frames of what leads from an error to its handler. The frames before them are those of the handler.
HANDLER_LINE: Final = re.compile(
    r"panic\(|runtime\.(?:gopanic|sigpanic|panicmem)|.*<signal handler called>|.*\b__restore_rt\b"
)
