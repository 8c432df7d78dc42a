"""A storage that hiccups is asked again; whatever its client raises ends as one line."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.artifacts.places import StoragePlace
from orchestrator.adapters.artifacts.remote_place import RemotePlace
from orchestrator.adapters.artifacts.retrying import pauses
from orchestrator.core.errors import ArtifactError, DamagedError, StorageError
from orchestrator.core.settings import PATIENT
from tests.adapters.artifacts.shelf import FILES, contents, put
from tests.fakes import FakeClock
from tests.interposed import Interposed


class HttpError(Exception):
    """What the client of a cloud raises: no `OSError`."""


class EndpointConnectionError(Exception):
    """Another one, with a message of several lines."""


PASSING = [
    HttpError(),
    EndpointConnectionError("Could not connect\n to the endpoint"),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    TimeoutError(),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    RuntimeError("Event loop is closed"),
]
LONGEST = tuple(islice(pauses(lambda: 1.0), 10))  # seconds


class Flaky:
    """Stands before a method, which raises `error` the first `times` times."""

    def __init__(self, inner: Callable[..., object], error: Exception, times: int) -> None:
        self.inner, self.error, self.left, self.asked = inner, error, times, 0

    def bound(self) -> Callable[..., object]:
        def call(owner: object, *given: object, **named: object) -> object:
            self.asked += 1
            if self.left > 0:
                self.left -= 1
                raise self.error
            return self.inner(owner, *given, **named)

        return call


Break = Callable[[type, str, Exception, int], Flaky]


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Return what makes a method of a type raise an error so many times."""

    def install(owner: type, method: str, error: Exception, times: int) -> Flaky:
        flaky = Flaky(getattr(owner, method), error, times)
        monkeypatch.setattr(owner, method, flaky.bound())
        return flaky

    return install


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def patient(tmp_path: Path, clock: FakeClock) -> FsspecArtifactStore:
    return FsspecArtifactStore(f"memory://{uuid.uuid4().hex}", tmp_path / "scratch", clock)


def all_of_it(store: FsspecArtifactStore) -> None:
    """Use every call that a store has."""
    ref = put(store)
    assert contents(store.fetch(ref)) == FILES
    assert store.verify(ref.uri) == store.manifest("r/train/1")
    folder = store.part("c/step-1", "a")
    (folder / "w").write_bytes(b"123")
    files = store.add(folder, "c/step-1", "a")
    store.seal("c/step-1", files, {})
    assert store.weight("c/step-1") > 3
    store.mark("c/leave", "soon")
    assert store.marked("c/leave") == "soon"
    assert set(store.names("c")) == {"step-1", "leave"}
    store.load("c/step-1")
    store.remove("c/step-1")
    assert list(store.names("c")) == ["leave"]


@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize(
    "method",
    ["cat_file", "pipe_file", "put_file", "find", "ls", "rm", "makedirs", "open", "exists"],
)
def test_a_client_that_fails_once_is_asked_again(
    patient: FsspecArtifactStore, breaks: Break, clock: FakeClock, method: str, error: Exception
) -> None:
    flaky = breaks(MemoryFileSystem, method, error, 1)
    all_of_it(patient)
    assert flaky.asked > 1
    assert LONGEST[0] / 2 <= clock.now() <= LONGEST[0]


@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize(
    "method", ["add", "seal", "write", "read", "files", "open", "children", "remove", "put"]
)
def test_a_folder_whose_file_system_fails_for_a_while_is_asked_again(
    tmp_path: Path, clock: FakeClock, method: str, error: Exception
) -> None:
    left = [error] * 3

    def fails(*_given: object, **_named: object) -> None:
        if left:
            raise left.pop()

    store = FsspecArtifactStore(
        str(tmp_path / "store"),
        clock=clock,
        stands_before=lambda place: Interposed(place, **{method: fails}),  # type: ignore[arg-type,return-value]
    )
    all_of_it(store)
    assert left == []
    assert sum(LONGEST[:3]) / 2 <= clock.now() <= sum(LONGEST[:3])


@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize("method", ["cat_file", "pipe_file", "put_file", "find", "ls", "makedirs"])
def test_what_does_not_pass_in_time_is_a_storage_error_of_one_line(
    patient: FsspecArtifactStore, breaks: Break, clock: FakeClock, method: str, error: Exception
) -> None:
    breaks(MemoryFileSystem, method, error, 1000)
    with pytest.raises(StorageError) as raised:
        all_of_it(patient)
    assert not isinstance(raised.value, DamagedError)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("; check its storage")
    assert clock.now() == pytest.approx(PATIENT.storage)


@pytest.mark.parametrize("patience", [0.0, 0.7, 600.0])
def test_it_is_asked_for_as_long_as_the_run_says(
    tmp_path: Path, breaks: Break, clock: FakeClock, patience: float
) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    store = FsspecArtifactStore(uri, tmp_path / "scratch", clock, patience=patience)
    breaks(MemoryFileSystem, "cat_file", PASSING[0], 1000)
    with pytest.raises(StorageError, match="'c/x': HttpError; check its storage"):
        store.marked("c/x")
    assert clock.now() == pytest.approx(patience)


def test_pauses_double_up_to_half_a_minute_and_no_two_workers_come_back_at_one_moment() -> None:
    assert LONGEST == (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)
    draw = Random(0).random  # noqa: S311 - no secret
    workers = [tuple(islice(pauses(draw), len(LONGEST))) for _ in range(100)]
    for number, longest in enumerate(LONGEST):
        drawn = {worker[number] for worker in workers}
        assert len(drawn) == len(workers)
        assert longest / 2 <= min(drawn) < 0.6 * longest
        assert 0.9 * longest < max(drawn) <= longest


def test_an_outage_is_waited_for_once_and_not_by_each_call_in_it(
    patient: FsspecArtifactStore, breaks: Break, clock: FakeClock
) -> None:
    flaky = breaks(MemoryFileSystem, "cat_file", PASSING[0], 1000)
    for name in ("c/save", "c/refusal", "c/fence"):
        with pytest.raises(StorageError):
            patient.marked(name)
    assert clock.now() == pytest.approx(PATIENT.storage)
    flaky.left = 0
    assert patient.marked("c/save") is None
    flaky.left = 1000  # another outage
    with pytest.raises(StorageError):
        patient.marked("c/save")
    clock.sleep(PATIENT.storage + 1.0)  # and one that may be over
    with pytest.raises(StorageError):
        patient.marked("c/save")
    assert clock.now() == pytest.approx(4 * PATIENT.storage + 1.0)


def test_the_words_of_the_client_are_kept(patient: FsspecArtifactStore, breaks: Break) -> None:
    breaks(MemoryFileSystem, "cat_file", PASSING[1], 1000)
    said = "artifact 'c/x': EndpointConnectionError: Could not connect to the endpoint; check its"
    with pytest.raises(StorageError, match=said):
        patient.marked("c/x")


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space within the quota, or raise it"),
        (errno.EFBIG, "raise the limit on the size of files"),
        (errno.EROFS, "check the permissions"),
        (errno.EACCES, "check the permissions"),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(
    patient: FsspecArtifactStore, breaks: Break, clock: FakeClock, number: int, way_out: str
) -> None:
    breaks(MemoryFileSystem, "pipe_file", OSError(number, os.strerror(number)), 1000)
    with pytest.raises(StorageError, match=way_out):
        patient.mark("c/x", "x")
    assert clock.now() == 0.0


def test_without_a_clock_nobody_waits(remote: FsspecArtifactStore, breaks: Break) -> None:
    flaky = breaks(MemoryFileSystem, "cat_file", PASSING[0], 1000)
    with pytest.raises(StorageError, match="'c/x': HttpError; check its storage"):
        remote.marked("c/x")
    assert flaky.asked == 1


@dataclass
class LosesAnswers:
    """A place whose answers to one `method` get lost `times` times, once it has done that."""

    place: StoragePlace
    method: str
    times: int = 1000
    asked: int = 0

    def __getattr__(self, name: str) -> object:
        does = getattr(self.place, name)
        if name != self.method:
            return does

        def lost(*given: object) -> object:
            self.asked += 1
            answer = does(*given)
            if self.asked <= self.times:
                raise TimeoutError
            return answer

        return lost


@pytest.mark.parametrize("local", [True, False])
def test_a_seal_whose_answer_was_lost_is_no_second_one(
    tmp_path: Path, clock: FakeClock, *, local: bool
) -> None:
    uri = str(tmp_path / "s") if local else f"memory://{uuid.uuid4().hex}"
    places: list[LosesAnswers] = []

    def losing(place: StoragePlace) -> Any:
        places.append(LosesAnswers(place, "seal"))
        return places[0]

    store = FsspecArtifactStore(uri, tmp_path / "scratch", clock, stands_before=losing)
    folder = store.part("c/step-1", "a")
    (folder / "w").write_bytes(b"123")
    store.seal("c/step-1", store.add(folder, "c/step-1", "a"), {})
    assert places[0].asked == 1
    assert store.load("c/step-1")[1].files.keys() == {"a/w"}


def test_a_commit_whose_answer_was_lost_is_no_second_one(tmp_path: Path, clock: FakeClock) -> None:
    losing: Any = lambda place: LosesAnswers(place, "put", times=1)  # noqa: E731
    store = FsspecArtifactStore(str(tmp_path / "store"), clock=clock, stands_before=losing)
    ref = put(store)
    assert contents(store.fetch(ref)) == FILES


def test_a_flush_that_fails_once_is_made_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FsspecArtifactStore(str(tmp_path / "store"), clock=clock)
    flush, times = os.fsync, iter(range(1000))

    def once_in_a_while(handle: int) -> None:
        if next(times) % 7 == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(handle)

    monkeypatch.setattr(os, "fsync", once_in_a_while)
    all_of_it(store)
    assert clock.now() > 0.0


def test_a_stream_that_breaks_while_it_is_read_is_read_anew(
    patient: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = put(patient)
    opened = RemotePlace.open
    breaks_off = iter([True])

    class Broken:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_words: object) -> None: ...

        def read(self, _size: int = -1) -> bytes:
            raise HttpError

    def open_file(self: RemotePlace, name: str, path: str) -> object:
        return Broken() if next(breaks_off, False) else opened(self, name, path)

    monkeypatch.setattr(RemotePlace, "open", open_file)
    assert patient.verify(ref.uri).files.keys() == FILES.keys()


def test_a_mistake_of_the_caller_is_no_trouble_of_the_storage(
    patient: FsspecArtifactStore, clock: FakeClock
) -> None:
    for act in (
        lambda: patient.mark("../up", "x"),
        lambda: patient.manifest("r/none"),
        lambda: patient.verify("file:///elsewhere"),
    ):
        with pytest.raises(ArtifactError) as raised:
            act()
        assert not isinstance(raised.value, StorageError)
    assert clock.now() == 0.0


def test_what_grows_shows_before_it_is_whole(store: FsspecArtifactStore) -> None:
    assert store.weight("c/step-1") == 0
    folder = store.part("c/step-1", "a")
    (folder / "w").write_bytes(b"123")
    store.add(folder, "c/step-1", "a")
    assert store.weight("c/step-1") == 3
