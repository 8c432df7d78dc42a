"""Whatever a job says, text that nobody can keep doesn't leave its worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import Failed, LogLine, Message, Report, Succeeded
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.reported import numbers
from tests.worker.conftest import Bench

ANY = st.text(st.characters(exclude_categories=()))
NAMES = st.text(st.characters(exclude_categories=()), min_size=1, max_size=20)


def texts(value: object) -> list[str]:
    """Return all text in a value, however deep."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in texts(one)]
    fields = getattr(value, "__dataclass_fields__", ())
    return [text for name in fields for text in texts(getattr(value, name))]


@given(ANY, NAMES, st.booleans())
def test_any_text_in_any_message_survives_utf_8(text: str, name: str, ends_well: bool) -> None:  # noqa: FBT001 - drawn
    outbox = MessageQueue()
    outbox.line(LogLine(0, text))
    outbox.say(Report(text, text))
    outbox.points(1, numbers({name: 1.0}, "metrics"), 1.0)
    broken = Failure(kind=FailureKind.USER_CODE, evidence=text, detail=text)
    outbox.finish(Succeeded(None, {text: 1.0}) if ends_well else Failed(broken))
    said = outbox.last()
    assert len(said) == 4
    for found in texts(dict(enumerate(said))):
        assert found.encode().decode() == found
        assert "\0" not in found


SAYS = r"""
    import sys
    def job(ctx):
        print("printed \ud83d")
        print("null \0", file=sys.stderr)
        ctx.log("logged \udcff")
        ctx.report("a.txt", "reported \ud800")
        raise ValueError("raised \udcff\0")
    """


def test_a_lone_surrogate_is_shown_as_an_escape_wherever_a_job_says_it(bench: Bench) -> None:
    *said, outcome = bench.messages(SAYS)
    lines = [m.text for m in said if isinstance(m, LogLine)]
    assert lines == [r"printed \ud83d", r"null \x00", r"logged \udcff"]
    assert Report("a.txt", r"reported \ud800") in said
    assert isinstance(outcome, Failed)
    assert outcome.failure.evidence == r"ValueError: raised \udcff\x00"
    assert encodes(outcome)


def encodes(message: Message) -> bool:
    return all(text.encode() for text in texts(message) if text)
