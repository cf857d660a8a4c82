"""SASL: both sides of each mechanism agree, and nobody logs in without an account."""

from __future__ import annotations

import pytest

from smtpbench.errors import UsageError
from smtpbench.smtp import sasl


def exchange(mechanism: str, user: str, password: str) -> tuple[bool, str]:
    """Run a whole exchange; return its outcome and the `repr` of both sides."""
    client = sasl.client_exchange(mechanism, user, password)
    server = sasl.MECHANISMS[mechanism].server(sasl.Accounts({"ann": "secret"}), lambda: "nonce")
    outcome = server.step(client.initial_response())
    for _ in range(4):
        if isinstance(outcome, bool):
            return outcome, repr((client, server, server.accounts))
        outcome = server.step(client.respond(outcome))
    raise AssertionError("the exchange has no end")


@pytest.mark.parametrize("mechanism", sasl.MECHANISMS)
@pytest.mark.parametrize(("password", "succeeds"), [("secret", True), ("wrong", False), ("", False)])
def test_both_sides_agree(mechanism: str, password: str, succeeds: bool) -> None:
    outcome, shown = exchange(mechanism, "ann", password)
    assert outcome is succeeds
    assert password == "" or password not in shown


@pytest.mark.parametrize("user", ["", "bob", "__class__", "x" * 10_000])
@pytest.mark.parametrize("mechanism", sasl.MECHANISMS)
def test_unknown_user_does_not_log_in(mechanism: str, user: str) -> None:
    assert exchange(mechanism, user, "")[0] is False


def test_user_name_that_is_not_utf8_does_not_log_in() -> None:
    server = sasl.MECHANISMS["PLAIN"].server(sasl.Accounts({"ann": "secret"}), lambda: "nonce")
    assert server.step(b"\0\xff\0secret") is False


def test_cram_md5_matches_the_example_of_rfc_2195() -> None:
    client = sasl.client_exchange("CRAM-MD5", "tim", "tanstaaftanstaaf")
    response = client.respond(b"<1896.697170952@postoffice.reston.mci.net>")
    assert response == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_unknown_mechanism_is_a_usage_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="PLAIN, LOGIN, CRAM-MD5, XOAUTH2"):
        sasl.client_exchange("SCRAM-SHA-1", "u", "p")


@pytest.mark.parametrize("credentials", [("u\0v", "p"), ("u", "p\0q")])
def test_nul_in_a_credential_is_a_usage_error(credentials: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="NUL"):
        sasl.client_exchange("PLAIN", *credentials)
