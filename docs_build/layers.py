"""The layers of the program, as a table: `tests/test_layers.py` holds the code to it, `picture` draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Layer(NamedTuple):
    """Packages that stand on one floor: each may import those of lower layers, and none of its own.

    Attributes:
        name: What the packages have in common.
        packages: Name of a package or module → what it is, in a few words.
    """

    name: str
    packages: Mapping[str, str]


#: Lower layers first.
LAYERS: Final = (
    Layer("Errors", {"errors": "exceptions"}),
    Layer("Units and text", {"units": "durations, sizes, rates", "text": "visible text"}),
    Layer("What SMTP is", {"smtp": "commands, replies, states, SASL"}),
    Layer("What is measured", {"threshold": "metrics and limits"}),
    Layer("Moving octets", {"engine": "connections, epoll, TLS"}),
    Layer("One connection", {"session": "scripts, client, server", "target": "URLs, TLS, logins"}),
    Layer(
        "Building blocks",
        {
            "measure": "histograms", "scenario": "scenario files", "sink": "test server",
            "rules": "protocol rules",
        },
    ),
    Layer("The server under test", {"supervisor": "starts, watches and stops it"}),
    Layer("Testing a server", {"load": "load tests", "check": "rule checks", "fuzz": "fuzzing"}),
    Layer("Studies", {"study": "comparisons, capacity", "doctor": "examination before a run"}),
    Layer("Showing results", {"report": "HTML, terminal, JUnit, SARIF …"}),
    Layer("For users", {"cli": "command line", "pytest_plugin": "fixtures for pytest"}),
)  # fmt: skip
