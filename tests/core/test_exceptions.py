"""What an exception shows by its type, its number and its words, and what is likely otherwise."""

from __future__ import annotations

import errno

import pytest

from orchestrator.core.failures.exceptions import BY_PLAIN, BY_TYPE, Judgement, Raised, judge
from orchestrator.core.failures.kinds import DISK_FULL, FailureKind
from orchestrator.core.failures.python_errors import bases
from orchestrator.core.failures.signatures import Matcher, Signature
from tests.build import documented

KNOWN = Matcher(documented())


def judged(name: str, message: str = "", **facts: object) -> Judgement:
    return judge((Raised(bases(name), message, **facts),), KNOWN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("MemoryError", FailureKind.HOST_MEMORY),
        ("FloatingPointError", FailureKind.NUMERICAL_DIVERGENCE),
        ("orchestrator.core.errors.StorageError", FailureKind.STORAGE),
        ("orchestrator.core.errors.StorageSetUpError", FailureKind.SET_UP),
        ("orchestrator.core.errors.ArtifactError", FailureKind.DATA),
        ("orchestrator.core.errors.JobError", FailureKind.USER_CODE),
    ],
)
def test_some_types_say_it_all(name: str, kind: FailureKind) -> None:
    assert judged(name, "x") == Judgement(kind, certain=True, sign=BY_TYPE)


def test_a_number_of_the_system_names_the_kind() -> None:
    found = judged("OSError", "x", number=errno.EROFS)
    assert found == Judgement(FailureKind.STORAGE, certain=True, sign="errno_EROFS")
    assert judged("URLError", "<urlopen error [Errno 111] refused>").sign == "errno_ECONNREFUSED"
    for number in (errno.EFBIG, errno.EKEYEXPIRED):
        assert judged("OSError", "x", number=number).kind is FailureKind.STORAGE
    for number in (errno.ENOBUFS, errno.ENONET):
        assert judged("OSError", "x", number=number).kind is FailureKind.INTERCONNECT
    assert judged("OSError", "x", number=errno.ELOOP).kind is FailureKind.UNKNOWN
    assert judged("OSError", "[Errno 9999] x").sign == ""


def test_a_disk_without_room_is_known_by_whatever_says_so() -> None:
    storage = Raised(bases("orchestrator.core.errors.StorageError"), "step 7: not saved")
    of_system = Raised(bases("OSError"), "x", number=errno.EDQUOT)
    assert judge((storage, of_system), KNOWN).sign == DISK_FULL
    assert judge((storage,), KNOWN).sign == BY_TYPE
    for message in ("[Errno 28] No space left on device: '/a'", "write: Disk quota exceeded"):
        found = judged("RuntimeError", message)
        assert (found.kind, found.sign) == (FailureKind.STORAGE, DISK_FULL)
    memory = judged("OSError", "[Errno 28] No space left on device: '/dev/shm/x'")
    assert memory.kind is FailureKind.HOST_MEMORY


def test_an_error_of_links_without_a_number_is_one_all_the_same() -> None:
    assert judged("TimeoutError") == Judgement(
        FailureKind.INTERCONNECT, certain=False, sign=BY_TYPE
    )


def test_a_plain_exception_is_the_users_own_and_says_so() -> None:
    assert judged("ZeroDivisionError", "x").sign == BY_PLAIN


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("RuntimeError", "the batch is empty", FailureKind.USER_CODE),
        ("RuntimeError", "boom", FailureKind.UNKNOWN),
        ("RuntimeError", "the batch is empty on 0xdead", FailureKind.UNKNOWN),
        ("RuntimeError", "the batch is empty: FOO_BAR_BAZ", FailureKind.UNKNOWN),
        ("RuntimeError", "the batch is empty for WorkerProc", FailureKind.UNKNOWN),
        ("MyError", "enough", FailureKind.USER_CODE),
        ("PeerOddError", "enough", FailureKind.UNKNOWN),
        ("PeerOddError", "it failed", FailureKind.SOFTWARE),
        ("PeerOddError", "the batch failed", FailureKind.UNKNOWN),
        ("RuntimeError", "could not find whatever it is", FailureKind.UNKNOWN),
        ("RuntimeError", "could not convert the batch", FailureKind.USER_CODE),
        ("EOFError", "", FailureKind.UNKNOWN),
        ("KeyboardInterrupt", "", FailureKind.UNKNOWN),
    ],
)
def test_without_a_signature_the_words_decide(name: str, message: str, kind: FailureKind) -> None:
    found = judged(name, message)
    assert (found.kind, found.certain) == (kind, False)


def test_what_a_library_raises_is_nobodys_where_it_is_not_plain() -> None:
    assert judged("RuntimeError", "the batch is empty", library=True).kind is FailureKind.UNKNOWN
    assert judged("ValueError", "the batch is empty", library=True).sign == BY_PLAIN


@pytest.mark.parametrize("name", ["ray.exceptions.OddError", "botocore.exceptions.OddError"])
def test_nor_is_what_a_well_known_package_calls_its_own(name: str) -> None:
    known = Matcher([])
    assert judge((Raised(bases(name), "enough"),), known).kind is FailureKind.UNKNOWN
    own = Raised(bases("mycode.errors.OddError"), "enough")
    assert judge((own,), known).kind is FailureKind.USER_CODE


def test_an_error_of_the_system_is_never_the_jobs_own_by_its_words() -> None:
    assert judged("OSError", "the batch is empty").kind is FailureKind.UNKNOWN


def test_a_number_says_more_than_words_that_anybody_uses() -> None:
    assert judged("OSError", "cannot open file x", number=errno.ENOMEM).sign == "errno_ENOMEM"
    assert judged("OSError", "cannot open file x").kind is FailureKind.STORAGE


def test_an_exception_that_passes_on_the_traceback_of_another_is_that() -> None:
    told = 'ray::A.f() (pid=7) failed\n  File "a.py", line 1, in f\n    g()\n'
    assert judged("torch.distributed.checkpoint.Odd", f"{told}KeyError: 'x'").sign == BY_PLAIN
    found = judged("WrapperError", f"{told}RuntimeError: CUDA out of memory. Tried\nto allocate")
    assert found.kind is FailureKind.OUT_OF_MEMORY
    assert (
        judged("ray.exceptions.Odd", f"{told}RuntimeError: boom").kind is FailureKind.WORKER_LOST
    )
    assert judged("ray.exceptions.Odd", f"{told}  no end").kind is FailureKind.WORKER_LOST


def test_a_compiler_tells_of_code_that_it_made_itself() -> None:
    said = "backend='inductor' raised:\nRuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert judged("BackendCompilerFailed", said).kind is FailureKind.SOFTWARE
    assert judged("MyError", said).kind is FailureKind.USER_CODE


def test_the_error_of_a_task_of_ray_is_what_was_raised_there() -> None:
    assert judged("ray.exceptions.RayTaskError(ValueError)", "x").sign == BY_PLAIN


def test_what_caused_an_exception_decides_where_that_says_more() -> None:
    top = Raised(bases("MyError"), "the step failed")
    plain, other = Raised(bases("KeyError"), "1"), Raised(bases("RuntimeError"), "boom")
    assert judge((top, plain), KNOWN).sign == BY_PLAIN
    assert judge((top, other), KNOWN).kind is FailureKind.UNKNOWN
    assert judge((top, Raised(bases("MemoryError"), "")), KNOWN).kind is FailureKind.HOST_MEMORY


def test_a_signature_may_name_a_base_of_a_plain_exception() -> None:
    known = Matcher(
        [Signature(pattern="^ValueError: no sensor", kind=FailureKind.DEVICE_LOST, name="it")]
    )
    types = ("jobs.SensorError", *bases("ValueError"))
    assert judge((Raised(types, "no sensor"),), known).sign == "it"
    assert judge((Raised(types, "no label"),), known).sign == BY_PLAIN


def test_an_exception_without_words_is_its_type() -> None:
    assert Raised(("MyError",), "").in_full == "MyError"
