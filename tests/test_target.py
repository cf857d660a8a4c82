"""Target URLs: every target can be written as a URL that gives the same target again, and unknown parts are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench.errors import UsageError
from smtpbench.target import Target, parse_target

_HOSTS = st.sampled_from(["127.0.0.1", "mail.example", "::1", "fe80::1%eth0"])
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(user=_TEXT | st.just(""), host=_HOSTS, port=st.integers(1, 65535), starttls=st.booleans())
def test_tcp_target_survives_its_url(user: str, host: str, port: int, starttls: bool) -> None:
    target = Target("smtp", host, port, user, starttls)
    assert parse_target(target.url) == target


@given(path=st.binary(min_size=1, max_size=40).filter(lambda octets: not octets.startswith(b"/")))
def test_path_of_a_socket_survives_its_url(path: bytes) -> None:
    target = Target("lmtp+unix", "", 0, path="/" + path.decode("utf-8", "surrogateescape"))
    assert parse_target(target.url) == target
    assert target.url.isascii()


@pytest.mark.parametrize(
    ("url", "user", "again"),
    [
        ("smtp://a%3Ab@127.0.0.1:25", "a:b", "smtp://a%3Ab@127.0.0.1:25"),
        ("smtp://me@mail.example@127.0.0.1", "me@mail.example", "smtp://me%40mail.example@127.0.0.1:25"),
        ("smtp://me+tag@127.0.0.1", "me+tag", "smtp://me+tag@127.0.0.1:25"),
    ],
)
def test_user_name_is_percent_encoded(url: str, user: str, again: str) -> None:
    target = parse_target(url)
    assert (target.user, target.url) == (user, again)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("lmtp+unix:///x?tls=nonsense", "unknown value tls=nonsense"),
        ("lmtp+unix:///x?mode=1", "unknown option 'mode'"),
        ("lmtp+unix:///x?tls=starttls", "use it with smtp:// only"),
        ("lmtp+unix:///x#y", "has a fragment"),
        ("smtp://h#y", "has a fragment"),
        ("smtp://h?nonsense", "unknown option 'nonsense'"),
        ("smtps://h?tls=starttls", "use it with smtp:// only"),
        ("smtp://%ff@h", "the user name is not UTF-8"),
        ("smtp://a:b@h", "contains a password"),
    ],
)
def test_part_that_a_target_does_not_have_is_refused(url: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        parse_target(url)
