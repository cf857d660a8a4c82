"""What the user says about a target."""

from __future__ import annotations

import pytest

from smtpbench.errors import UsageError
from smtpbench.rules.discover import Fixture
from smtpbench.target import Access, parse_target


@pytest.mark.parametrize("address", ["a@b.example>\r\nNOOP", "a\n", "\rb"])
@pytest.mark.parametrize("name", ["recipient", "sender"])
def test_address_with_a_line_end_is_refused(name: str, address: str) -> None:
    with pytest.raises(UsageError, match=f"the {name} .* contains a line end"):
        Fixture.of(Access(parse_target("smtp://127.0.0.1")), **{name: address})
