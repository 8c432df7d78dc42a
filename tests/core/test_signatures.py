"""Which signature a line has: the highest priority, where it fits, and how sure that is."""

from __future__ import annotations

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.failures.signatures import (
    Matcher,
    Shows,
    Sign,
    Signature,
    matcher,
    strongest,
)


def signature(pattern: str, name: str = "it", **changes: object) -> Signature:
    facts: dict[str, object] = {"kind": FailureKind.SOFTWARE, "name": name, **changes}
    return Signature(pattern=pattern, **facts)  # type: ignore[arg-type]


def named(found: Sign | None) -> str:
    return found.signature.name if found else ""


def test_the_highest_priority_counts_and_of_equals_the_first() -> None:
    known = Matcher(
        [
            signature("boom", "first"),
            signature("boom", "second"),
            signature("^boom", "high", priority=1),
        ]
    )
    assert named(known.in_line("boom")) == "high"
    assert named(known.in_line("a boom")) == "first"


def test_a_pattern_with_a_caret_fits_where_words_begin_alone() -> None:
    known = Matcher([signature("^boom")])
    assert named(known.in_line("[rank0]: [ERROR] boom")) == "it"
    assert named(known.in_line("a boom")) == ""


def test_a_pattern_without_one_is_not_found_in_quotes() -> None:
    known = Matcher([signature("boom")])
    assert named(known.in_line("step 7: boom")) == "it"
    assert named(known.in_line("step 7: 'a boom'")) == ""
    assert named(known.in_line("the text says boom")) == ""


def test_a_loud_signature_is_looked_for_where_something_says_that_it_tells_of_an_error() -> None:
    known = Matcher([signature("(?i)disk .{0,20}full", loud=True)])
    for line in (
        "[ERROR] the disk is full",
        "E0102 10:11:12.345678 7 store.cc:12] the disk is full",
        "a/store.cc:12 the disk is full",
        "rsync: the disk is full",
        "save failed: the disk is full",
        "terminate called after throwing an instance of 'Full': the disk is full",
        "StoreError: the disk is full",
    ):
        assert named(known.in_line(line)) == "it", line
    for line in ("the disk is full", "INFO error: the disk is full", "[WARN] the disk is full"):
        assert named(known.in_line(line)) == "", line
    assert named(known.in_words("Odd: the disk is full", plain=False)) == "it"
    assert named(known.in_words("the disk is full", plain=False, first=False)) == "it"
    assert named(known.in_words("  frame: the disk is full", plain=False, first=False)) == ""


def test_an_error_that_is_passed_on_counts_though_it_is_quoted() -> None:
    known = Matcher([signature("^boom")])
    passed = known.in_words("RuntimeError: it failed with error 'boom', see above", plain=False)
    assert passed is not None
    assert passed.shows == "likely"
    assert named(known.in_words("RuntimeError: the row is 'boom'", plain=False)) == ""


def test_flags_at_the_head_of_a_pattern_hold_for_it() -> None:
    known = Matcher([signature("(?i)BOOM"), signature("^bang", "other")])
    assert named(known.in_line("a Boom")) == "it"
    assert named(known.in_line("Bang")) == ""


def test_a_pattern_without_any_word_is_looked_for_in_every_line() -> None:
    assert named(Matcher([signature(r"^E\d")]).in_line("E7")) == "it"


def test_a_plain_exception_is_fitted_by_a_pattern_that_names_its_type_alone() -> None:
    known = Matcher([signature("boom", "loose"), signature("^ValueError: boom", "typed")])
    assert named(known.in_line("ValueError: boom")) == "typed"
    assert named(known.in_words("ValueError: boom", plain=True)) == "typed"
    assert named(known.in_words("KeyError: boom", plain=True)) == ""
    assert named(known.in_line("RuntimeError: boom")) == "loose"


def test_a_cause_is_likely_in_a_warning_and_in_a_further_clause() -> None:
    known = Matcher([signature("^boom")])
    shows: list[Shows] = [
        found.shows
        for line in ("boom", "WARNING: boom", "RuntimeError: step 7 failed: boom")
        if (found := known.in_line(line))
    ]
    assert shows == ["cause", "likely", "likely"]


def test_the_strongest_sign_says_most_and_effects_say_nothing() -> None:
    kinds: tuple[Shows, ...] = ("effect", "victim", "likely", "cause")
    signs = [Sign(signature("x", shows=shows), "x", shows) for shows in kinds]
    assert strongest(signs) == signs[-1]
    assert strongest(signs[:2]) == signs[1]
    assert strongest(signs[:1]) is None


def test_a_matcher_is_made_once() -> None:
    known = (signature("x"),)
    assert matcher(known) is matcher(known)
