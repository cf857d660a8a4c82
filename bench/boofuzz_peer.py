"""boofuzz on an SMTP server, as its examples do it: EHLO, MAIL, RCPT, DATA and a text, one value of them fuzzed at a time.

Run by `fuzzing.py` with the Python of an environment that has boofuzz: PORT CASES FIRST DATABASE LOG. The first case says
how deep it goes: boofuzz begins with EHLO and comes to the text last. What it mutates it sends as the last thing: no QUIT.
LOG is `text` for the log that it writes unless told not to, and `none` for none. Prints cases, CPU and wall seconds as JSON.
"""

import json
import resource
import sys
import time
from itertools import pairwise

from boofuzz import (  # type: ignore[import-not-found,unused-ignore]  # it has an environment of its own
    Request,
    Session,
    Static,
    String,
    Target,
    TCPSocketConnection,
)


def line(name: str, verb: str, value: str, end: str = "\r\n") -> Request:
    return Request(name, children=(Static("verb", verb), String("value", value), Static("end", end)))


def main() -> None:
    port, cases, first = map(int, sys.argv[1:4])
    session = Session(
        target=Target(connection=TCPSocketConnection("127.0.0.1", port, recv_timeout=1.0)),
        fuzz_loggers=None if sys.argv[5] == "text" else [],
        sleep_time=0,
        receive_data_after_each_request=True,
        receive_data_after_fuzz=True,
        check_data_received_each_request=False,
        web_port=None,
        reuse_target_connection=False,
        index_start=first,
        index_end=first + cases - 1,
        db_filename=sys.argv[4],
    )
    steps = [
        line("ehlo", "EHLO ", "client.example"),
        line("mail", "MAIL FROM:", "<a@client.example>"),
        line("rcpt", "RCPT TO:", "<b@recipient.example>"),
        Request("data", children=(Static("line", "DATA\r\n"),)),
        line("text", "Subject: ", "fuzz", "\r\n.\r\n"),
    ]
    session.connect(steps[0])
    for before, after in pairwise(steps):
        session.connect(before, after)
    began, before_cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    session.fuzz()
    after_cpu = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after_cpu.ru_utime + after_cpu.ru_stime - before_cpu.ru_utime - before_cpu.ru_stime
    print(json.dumps({"cases": session.num_cases_actually_fuzzed, "cpu_s": cpu_s, "wall_s": time.monotonic() - began}))


main()
