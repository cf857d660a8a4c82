"""Fuzzing of an SMTP server with boofuzz, as in its examples: EHLO, MAIL, RCPT, DATA and a text, one value at a time.

`fuzzing.py` runs this with the Python of an environment that has boofuzz. Arguments: PORT CASES FIRST DATABASE LOG. boofuzz
mutates EHLO first and the text last, so FIRST, the number of the first case, sets the depth. The mutated request is the last
one of a case; there is no QUIT. LOG is `text` for the default log of boofuzz, or `none`. Prints cases, CPU seconds and wall
seconds as JSON.
"""

import json
import resource
import sys
import time
from itertools import pairwise

from boofuzz import (  # type: ignore[import-not-found,unused-ignore]  # installed in an environment of its own
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
    started, usage_before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    session.fuzz()
    usage_after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage_after.ru_utime + usage_after.ru_stime - usage_before.ru_utime - usage_before.ru_stime
    print(json.dumps({"cases": session.num_cases_actually_fuzzed, "cpu_s": cpu_s, "wall_s": time.monotonic() - started}))


main()
