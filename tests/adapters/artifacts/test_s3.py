"""The store on a real S3 API: large files, two that seal at once, and what may go wrong there."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import fsspec
import pytest
from fsspec.registry import _registry

from orchestrator import wiring
from orchestrator.adapters.artifacts import FsspecArtifactStore, lacking
from orchestrator.adapters.artifacts.retrying import LONGEST_PAUSE
from orchestrator.core.artifact import MANIFEST_NAME
from orchestrator.core.errors import (
    ArtifactError,
    ConfigError,
    DamagedError,
    StorageError,
    StorageSetUpError,
)
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import PATIENT
from orchestrator.messages import Failed
from orchestrator.worker.exception_report import describe
from tests.adapters.artifacts.shelf import FILES, contents, put
from tests.adapters.artifacts.test_retrying import all_of_it
from tests.build import pool
from tests.certificates import LOOPBACK, Authority, behind_tls
from tests.clusters import request
from tests.fakes import FakeClock
from tests.s3 import FaultyProxy, S3Server, faulty

ONCE = {"retries": {"total_max_attempts": 1}}  # the client's own patience is not what is tested
MIB = 1 << 20
NAME = "c/step-1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def proxy(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the server, by which this process asks."""
    with faulty(s3) as proxy:
        settings = {**s3.settings(url=proxy.url), "config_kwargs": ONCE}
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        yield proxy


@pytest.fixture
def patient(
    proxy: FaultyProxy, bucket: str, tmp_path: Path, clock: FakeClock
) -> FsspecArtifactStore:
    return FsspecArtifactStore(f"{bucket}/x", tmp_path / "scratch", clock)


def kind(error: BaseException) -> FailureKind:
    """Return what an attempt that ends by `error` fails of."""
    return describe(error).kind


# --- large files --------------------------------------------------------------------------------


def test_a_large_file_travels_in_parts_that_fit_into_memory(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {**s3.settings(), "max_concurrency": 1})
    store = FsspecArtifactStore(bucket, tmp_path / "scratch")
    folder = store.scratch("r/train/1")
    with (folder / "w").open("wb") as stream:
        for number in range(48):
            stream.write(bytes([number]) * MIB)
    tracemalloc.start()
    try:
        ref = store.commit(folder, "r/train/1", {})
        _, sent = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        copy = store.fetch(ref)
        _, fetched = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (copy / "w").stat().st_size == ref.size == 48 * MIB
    assert max(sent, fetched) < 40 * MIB
    stored = s3.files().info(f"{bucket}/r/train/1/w")
    assert stored["ETag"].endswith('-6"')


# --- sealing ------------------------------------------------------------------------------------


def test_of_two_that_seal_at_once_one_wins(bucket: str, tmp_path: Path) -> None:
    rivals = [FsspecArtifactStore(bucket, tmp_path / str(i)) for i in range(2)]
    start = Barrier(2)

    def rival(number: int) -> str:
        store = rivals[number]
        folder = store.part(NAME, f"rank-{number}")
        (folder / "w").write_text(str(number))
        files = dict(store.add(folder, NAME, f"rank-{number}"))
        start.wait(20)
        files |= {f"rank-{1 - number}/w": files[f"rank-{number}/w"]}  # not what the other says
        try:
            store.seal(NAME, files, {"by": str(number)})
        except ArtifactError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(rival, range(2)))
    lost = f"artifact '{NAME}' exists with other contents; take another name"
    assert sorted(answers) == ["", lost]
    assert rivals[0].manifest(NAME).meta == {"by": str(answers.index(""))}


def test_a_seal_whose_answer_was_lost_is_ones_own(
    patient: FsspecArtifactStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, lost = proxy.answer, []

    def lose(method: str, path: str, *rest: object) -> object:
        reply = answer(method, path, *rest)  # type: ignore[arg-type]
        if method == "PUT" and path.endswith(MANIFEST_NAME) and not lost:
            lost.append(path)
            return 500, [], b"<Error><Code>InternalError</Code></Error>"
        return reply

    monkeypatch.setattr(proxy, "answer", lose)
    folder = patient.part(NAME, "a")
    (folder / "w").write_bytes(b"123")
    patient.seal(NAME, patient.add(folder, NAME, "a"), {})
    assert lost
    assert patient.load(NAME)[1].files.keys() == {"a/w"}


def test_a_store_that_takes_no_conditions_is_looked_at_before(
    patient: FsspecArtifactStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = proxy.answer

    def refuse(method: str, path: str, headers: dict[str, str], body: bytes) -> object:
        if any(name.lower() == "if-none-match" for name in headers):
            return 501, [], b"<Error><Code>NotImplemented</Code></Error>"
        return answer(method, path, headers, body)

    monkeypatch.setattr(proxy, "answer", refuse)
    ref = put(patient)
    assert put(patient) == ref
    with pytest.raises(ArtifactError, match="'r/train/1' exists with other contents; take"):
        put(patient, files={"other": b"x"})
    assert contents(patient.fetch(ref)) == FILES


# --- what may go wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"), [(503, "ServiceUnavailable"), (500, "InternalError"), (503, "SlowDown")]
)
def test_a_store_that_refuses_for_a_while_is_asked_again(
    patient: FsspecArtifactStore, proxy: FaultyProxy, clock: FakeClock, status: int, code: str
) -> None:
    proxy.refuse(status, code, times=5)
    all_of_it(patient)
    assert proxy.times == 0
    assert clock.now() > 0.0


@pytest.mark.parametrize("seconds", [60.0, 90.0, 120.0])
def test_two_minutes_of_refusals_are_waited_for_by_default(
    patient: FsspecArtifactStore, proxy: FaultyProxy, clock: FakeClock, seconds: float
) -> None:
    refused_at_first = len(proxy.seen)
    proxy.refuse(503, "SlowDown")
    clock.at(seconds, lambda: proxy.refuse(503, "SlowDown", times=0))
    ref = put(patient)
    refused = len(proxy.seen) - refused_at_first
    assert contents(patient.fetch(ref)) == FILES
    assert seconds <= clock.now() <= seconds + LONGEST_PAUSE
    assert refused < seconds, "it is asked less and less often"


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "ServiceUnavailable"), (500, "InternalError"), (400, "TokenRefreshRequired")],
)
@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.marked("c/x"),
        lambda store: store.mark("c/x", "x"),
        lambda store: store.names("c"),
        lambda store: store.load("r/train/1"),
        lambda store: store.remove("r/train/1"),
        put,
    ],
    ids=["marked", "mark", "names", "load", "remove", "put"],
)
def test_what_it_refuses_for_longer_is_the_storage_and_never_the_users_code(
    patient: FsspecArtifactStore,
    proxy: FaultyProxy,
    clock: FakeClock,
    status: int,
    code: str,
    act: Callable[[FsspecArtifactStore], object],
) -> None:
    proxy.refuse(status, code)
    with pytest.raises(StorageError) as raised:
        act(patient)
    assert not isinstance(raised.value, DamagedError)
    assert str(raised.value).endswith("; check its storage")
    assert kind(raised.value) is FailureKind.STORAGE
    assert clock.now() == pytest.approx(PATIENT.storage)


def test_a_bucket_that_is_lost_is_no_missing_artifact_and_is_not_made_again(
    s3: S3Server, patient: FsspecArtifactStore, bucket: str, clock: FakeClock
) -> None:
    ref = put(patient)
    s3.files().rm(bucket, recursive=True)
    acts: Sequence[Callable[[], object]] = (
        lambda: patient.fetch(ref),
        lambda: patient.verify(ref.uri),
        lambda: patient.marked("c/x"),
        lambda: patient.mark("c/x", "x"),
        lambda: patient.names("r"),
        lambda: patient.remove("r/train/1"),
        lambda: patient.weight("r/train/1"),
        lambda: put(patient, "r/train/2"),
    )
    for act in acts:
        with pytest.raises(StorageError, match="bucket does not exist; make the") as raised:
            act()
        assert kind(raised.value) is FailureKind.STORAGE
    assert clock.now() == 0.0
    assert not s3.files().exists(bucket)


def test_wrong_credentials_are_told_at_once(
    s3: S3Server, patient: FsspecArtifactStore, clock: FakeClock
) -> None:
    ref = put(patient)
    with s3.asking_who():
        for act in (lambda: patient.fetch(ref), lambda: put(patient, "r/train/2")):
            with pytest.raises(StorageError, match=r"; check the credentials of this") as raised:
                act()
            assert kind(raised.value) is FailureKind.STORAGE
    assert clock.now() == 0.0


def test_no_credentials_are_told_at_once(
    s3: S3Server, bucket: str, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": s3.url})
    store = FsspecArtifactStore(bucket, tmp_path / "scratch", clock)
    with pytest.raises(StorageError, match=r"locate credentials; give this machine its cred"):
        store.marked("c/x")
    assert clock.now() == 0.0


def test_a_name_that_is_too_long_is_the_names_fault(
    patient: FsspecArtifactStore, proxy: FaultyProxy, clock: FakeClock
) -> None:
    proxy.refuse(400, "KeyTooLongError")
    with pytest.raises(ArtifactError, match="'c/x': KeyTooLongError") as raised:
        patient.mark("c/x", "x")
    assert not isinstance(raised.value, StorageError)
    assert clock.now() == 0.0


# --- by TLS -------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def by_tls(
    s3: S3Server,
    bucket: str,
    authority: Authority,
    tmp_path: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FsspecArtifactStore]:
    """A store behind TLS, whose certificate `authority` has signed."""
    port = int(s3.url.rpartition(":")[2])
    with behind_tls(port, authority.certify(LOOPBACK)) as port:
        settings = {**s3.settings(url=f"https://{LOOPBACK}:{port}"), "config_kwargs": ONCE}
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        yield FsspecArtifactStore(f"{bucket}/x", tmp_path / "scratch", clock)


def test_a_store_is_proved_by_the_authority_that_the_environment_names(
    by_tls: FsspecArtifactStore, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    all_of_it(by_tls)


@pytest.mark.parametrize("named", ["another", "absent", "", "no certificate"])
def test_a_store_that_is_not_proved_is_told_at_once(
    by_tls: FsspecArtifactStore,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
) -> None:
    (tmp_path / "no certificate").write_text("none")
    files = {"another": Authority(tmp_path / "another").file, "": ""}
    monkeypatch.setenv("AWS_CA_BUNDLE", str(files.get(named, tmp_path / named)))
    for act in (lambda: by_tls.marked("c/x"), lambda: put(by_tls)):
        with pytest.raises(
            StorageError, match=r"; name who signs for it .* AWS_CA_BUNDLE"
        ) as raised:
            act()
        assert kind(raised.value) is FailureKind.STORAGE
    assert clock.now() == 0.0


# --- a host that is not set up ------------------------------------------------------------------


@pytest.fixture
def without_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a Python that lacks the package."""
    for name in ("s3", "s3a"):
        monkeypatch.delitem(_registry, name, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)


LACKS = (
    f"'s3://b/x' can't be opened by {sys.executable}, which lacks its package; "
    f"install orchestrator[s3] there"
)


def test_a_package_that_a_worker_lacks_is_its_set_up(without_s3fs: None) -> None:
    assert lacking("s3://b/x") == LACKS
    with pytest.raises(StorageSetUpError) as raised:
        FsspecArtifactStore("s3://b/x")
    assert kind(raised.value) is FailureKind.SET_UP
    asked = replace(request("jobs.noop.noop", "say", on=pool("atlas")), storage="s3://b/x")
    [[outcome]] = wiring.run_worker(asked, rank=0, rendezvous=None)
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.SET_UP
    assert outcome.failure.evidence == f"pool 'atlas': storage.uri {LACKS}"


def test_a_package_that_the_controller_lacks_is_told_by_plan(without_s3fs: None) -> None:
    with pytest.raises(ConfigError) as raised:
        wiring.planned(["pipeline=noop", "tracking=none", "storage.uri=s3://b/x"])
    assert [str(problem) for problem in raised.value.problems] == [f"storage.uri: {LACKS}"]
