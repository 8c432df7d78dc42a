"""Whether a key is needed, where, and what an emptied database changes."""

from __future__ import annotations

import pytest

from orchestrator.core.endpoints.api_keys import Requirement, follows, opens

ON, OFF, UNKNOWN = Requirement.ON, Requirement.OFF, Requirement.UNKNOWN


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"]
)
def test_this_machine_alone_needs_no_key_while_nobody_said_so(host: str) -> None:
    assert [opens(said, host) for said in (UNKNOWN, OFF, ON)] == [True, True, False]


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.7", "::ffff:10.0.0.7", "", "a.com", "127.0.0.1.com"],  # noqa: S104 - judged
)
def test_beyond_this_machine_it_is_closed_until_it_is_opened_in_words(host: str) -> None:
    assert [opens(said, host) for said in (UNKNOWN, OFF, ON)] == [False, True, False]


@pytest.mark.parametrize(
    ("before", "now", "then"),
    [
        (ON, UNKNOWN, ON),
        (ON, OFF, OFF),
        (OFF, UNKNOWN, UNKNOWN),
        (UNKNOWN, ON, ON),
        (UNKNOWN, UNKNOWN, UNKNOWN),
        (OFF, ON, ON),
    ],
)
def test_only_words_open_what_was_closed(
    before: Requirement, now: Requirement, then: Requirement
) -> None:
    assert follows(before, now) is then
