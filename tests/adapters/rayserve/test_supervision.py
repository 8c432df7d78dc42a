"""An engine server under supervision: started, found broken, given new weights, wholly gone."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.rayserve.engine_launch import EngineStartError
from orchestrator.adapters.rayserve.engine_process import inherited
from orchestrator.adapters.rayserve.supervision import Supervision
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engines import EngineSpec, Maker, MetricNames, Parallel, UpdateStep
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Endpoint, Needs
from orchestrator.supervisor.record import wait
from tests.build import accelerator
from tests.build import deployment as built
from tests.credentials import CREDENTIALS

SERVER = Path(__file__).with_name("fake_server.py")
SPEC = EngineSpec(
    name="fake",
    command=("{python}", str(SERVER), "{port}", "{model}", "{name}"),
    key_variable="FAKE_KEY",
    figures=MetricNames(running="running", waiting="waiting", tokens=("tokens",)),
    parallel=Parallel(tensor="tp"),
    update=(UpdateStep(path="/reload", body={"to": "{folder}"}),),
    update_environment={"LIVE": "1"},
    makers={"cpu": Maker()},
    probe_seconds=0.5,
    deadline=2.0,
    grace=2.0,
)
SECONDS = 30.0
NO_NUMBERS = '{"error": {"message": "Out of range float values are not JSON compliant"}}'  # vLLM's

pytestmark = pytest.mark.slow


def deployment(mode: str, **more: object) -> Deployment:
    spec = replace(SPEC, command=(*SPEC.command, mode))
    endpoint = Endpoint(name="chat", engine="fake", server=spec)
    pool = Pool(name="p", accelerator=accelerator(name="h800"), emulation=Emulation())
    endpoint = replace(endpoint, **more)
    plain = replace(built("chat"), token="secret", pool=pool, needs=Needs())  # noqa: S106 - a test's own
    return replace(plain, endpoint=endpoint)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "v1"
    folder.mkdir()
    return folder


@pytest.fixture
def running(model: Path) -> Iterator[Supervision]:
    supervision = Supervision(deployment("well", updates=True), model, "127.0.0.1")
    supervision.start()
    yield supervision
    supervision.stop()


def child_of(supervision: Supervision) -> int:
    process = supervision._process
    assert process is not None
    assert wait(lambda: any(line.startswith("child ") for line in process.lines), SECONDS)
    return int(next(line for line in process.lines if line.startswith("child ")).split()[1])


def tell(supervision: Supervision, mode: str) -> None:
    body = json.dumps(mode).encode()
    urllib.request.urlopen(f"{supervision.url}/mode", body).close()  # noqa: S310 - our own


def served(supervision: Supervision) -> str:
    with urllib.request.urlopen(f"{supervision.url}/model") as answer:  # noqa: S310 - our own
        return str(answer.read().decode())


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_running_engine_is_well_and_leaves_nothing_when_it_is_stopped(
    running: Supervision,
) -> None:
    child = child_of(running)
    assert running.fault == ""
    assert wait(lambda: bool(running.figures.tokens), SECONDS), "its figures are read"
    assert running._process is not None
    server = running._process.pid
    running.stop()
    running.stop()
    assert ended(server)
    assert wait(lambda: ended(child), SECONDS)
    assert not running._files.path.exists()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("sick", "/health answers 503, 3 times in a row"),
        ("hanging", "asked for one token: no answer: "),
        ("nan", "asked for one token: a log-probability is nan"),
        ("busy-nan", "asked for one token: a log-probability is nan"),
        ("refusing-nan", "asked for one token: it answers 400: "),
        ("stalled", "8 requests run, and none has got a token for 2 s"),
    ],
)
def test_an_engine_that_is_sick_hangs_or_computes_rubbish_is_found(
    running: Supervision, mode: str, said: str
) -> None:
    tell(running, mode)
    assert wait(lambda: bool(running.fault), SECONDS)
    assert running.fault.startswith(f"engine 'fake' is broken: {said}")


def test_the_death_of_its_process_is_found_and_what_it_left_is_ended(
    running: Supervision,
) -> None:
    child = child_of(running)
    assert running._process is not None
    os.kill(running._process.pid, signal.SIGKILL)
    assert wait(lambda: bool(running.fault), SECONDS)
    assert "it ended by SIGKILL" in running.fault
    running.stop()
    assert wait(lambda: ended(child), SECONDS)


def test_weights_are_taken_while_it_runs_and_it_is_started_anew_where_it_takes_none(
    running: Supervision, model: Path, tmp_path: Path
) -> None:
    assert running._process is not None
    before = running._process.pid
    other = tmp_path / "v2"
    other.mkdir()
    running.update(other, "v2")
    assert served(running) == str(other)
    assert running._process.pid == before

    tell(running, "nan")  # it then answers wrongly with what it read
    running.update(model, "v1")
    assert served(running) == str(model)
    assert running._process.pid != before
    assert running.fault == ""


def test_weights_that_it_refuses_leave_the_old_ones_in_service(
    running: Supervision, model: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "bad").touch()
    tell(running, "nan")
    with pytest.raises(EngineStartError, match="is no model"):
        running.update(bad, "bad")
    assert served(running) == str(model)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (
            "oom",
            "engine 'fake' ended with status 1: torch.OutOfMemoryError: CUDA out of memory",
        ),
        ("nan", "engine 'fake': it runs, but one token: a log-probability is nan"),
        (
            "pooling-nan",
            "engine 'fake': it runs, but one token: a number of an embedding is nan",
        ),
        (
            "refusing-nan",
            f"engine 'fake': it runs, but one token: it answers 400: {NO_NUMBERS!r}",
        ),
        ("another", "engine 'fake': it calls its model 'another', not 'chat'"),
        ("locked", "engine 'fake': it does not take its key: /v1/models answers 401"),
    ],
)
def test_a_start_that_fails_is_told_by_the_engine_s_own_words(
    model: Path, mode: str, said: str
) -> None:
    supervision = Supervision(deployment(mode), model, "127.0.0.1")
    with pytest.raises(EngineStartError) as raised:
        supervision.start()
    supervision.stop()
    assert str(raised.value) == said
    assert (mode == "oom") == ("See root cause above" in str(raised.value.__cause__))


def test_a_model_that_can_not_be_spread_is_refused_before_anything_starts(model: Path) -> None:
    (model / "config.json").write_text('{"num_attention_heads": 3}')
    spread = replace(deployment("well"), needs=Needs(devices=2))
    supervision = Supervision(spread, model, "127.0.0.1")
    with pytest.raises(EngineStartError, match="3 attention heads can't be spread over 2 chips"):
        supervision.start()
    supervision.stop()


def test_an_engine_inherits_no_secret_but_its_own_key(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("ORCHESTRATOR_DATABASE", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN_PATH", "HF_TOKEN")
    for name in secrets:
        monkeypatch.setenv(name, "hidden")
    supervision = Supervision(deployment("well"), model, "127.0.0.1")
    supervision.start()
    assert supervision._process is not None
    told = Path(f"/proc/{supervision._process.pid}/environ").read_text().split("\0")
    supervision.stop()
    assert "FAKE_KEY=secret" in told
    assert not [line for line in told if line.partition("=")[0] in secrets]
    assert inherited(CREDENTIALS) == {}
    assert inherited({"PATH": "x", "ORCHESTRATOR_WORKER": "m", "TOKENIZERS_PARALLELISM": "1"}) == {
        "PATH": "x",
        "ORCHESTRATOR_WORKER": "m",
        "TOKENIZERS_PARALLELISM": "1",
    }


@pytest.mark.parametrize("mode", ["early", "pooling"])
def test_an_engine_that_says_too_early_that_it_is_ready_or_only_embeds_starts(
    model: Path, mode: str
) -> None:
    supervision = Supervision(deployment(mode), model, "127.0.0.1")
    supervision.start()
    assert supervision.fault == ""
    if mode == "pooling":
        tell(supervision, "pooling-nan")
        assert wait(lambda: bool(supervision.fault), SECONDS)
        assert supervision.fault.endswith("a number of an embedding is nan")
    supervision.stop()


def test_of_an_engine_that_prints_without_end_most_is_left_out_of_the_log(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervision = Supervision(deployment("noisy"), model, "127.0.0.1")
    supervision.start()
    supervision.stop()
    assert capsys.readouterr().out.count("\nline ") < 10_000
    assert supervision._process is not None
    assert any(line == "line 19999" for line in supervision._process.lines)


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, f"No space left on device for {len(text)} characters")


def test_an_engine_whose_log_can_not_be_written_serves_on(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipe is read all the same: it would stand still else."""
    supervision = Supervision(deployment("noisy"), model, "127.0.0.1")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", FullDisk())
        supervision.start()
        supervision.stop()
    assert supervision._process is not None
    assert any(line == "line 19999" for line in supervision._process.lines)


def test_options_go_into_the_file_of_an_engine_that_has_one_which_is_its_user_s_alone(
    model: Path,
) -> None:
    of_file = replace(SPEC, files={"c.json": '{{"a": {{"key": "{key}"}}}}'}, options_file="c.json")
    one = deployment("well", engine_options={"a.b": 3})
    server = replace(of_file, command=(*SPEC.command, "well"))
    one = replace(one, endpoint=replace(one.endpoint, server=server))
    supervision = Supervision(one, model, "127.0.0.1")
    supervision.start()
    file = supervision._files.path / "c.json"
    assert json.loads(file.read_text()) == {"a": {"key": "secret", "b": 3}}
    assert file.stat().st_mode & 0o777 == 0o600
    supervision.stop()


def record(folder: Path, logprob: float, **more: float) -> Path:
    """Record in a folder that the model gives each token this log-probability."""
    texts = [{"tokens": [3, 4, 5, 6, 7, 8], "begin": 2, "logprobs": [logprob] * 4}]
    folder.mkdir(exist_ok=True)
    (folder / "proof.json").write_text(json.dumps({"texts": texts, **more}))
    return folder


def test_an_engine_that_computes_what_was_recorded_serves(model: Path, tmp_path: Path) -> None:
    recorded = record(tmp_path / "gate", -1.02)
    supervision = Supervision(deployment("well"), model, "127.0.0.1", recorded)
    supervision.start()
    assert supervision.fault == ""
    supervision.stop()


@pytest.mark.parametrize("own", [True, False])
def test_an_engine_that_computes_another_model_than_was_recorded_is_refused(
    model: Path, tmp_path: Path, *, own: bool
) -> None:
    recorded = record(model if own else tmp_path / "gate", -1.2)
    if own:  # what lies beside the weights counts more
        recorded = record(tmp_path / "gate", -1.0)
    supervision = Supervision(deployment("well"), model, "127.0.0.1", recorded)
    with pytest.raises(EngineStartError, match=r"computes another model: .* 0\.2 nats a token"):
        supervision.start()
    supervision.stop()


@pytest.mark.parametrize(("kl_mean", "allowed"), [(5e-5, "0.01"), (1.0, "0.0447")])
def test_what_the_gate_derived_is_the_limit_where_it_is_closer(
    model: Path, tmp_path: Path, kl_mean: float, allowed: str
) -> None:
    far = -1.02 if kl_mean < 1e-3 else -1.2
    recorded = record(tmp_path / "gate", far, kl_mean=kl_mean)
    supervision = Supervision(deployment("well"), model, "127.0.0.1", recorded)
    with pytest.raises(EngineStartError, match=f"nats a token apart, {allowed} are allowed"):
        supervision.start()
    supervision.stop()


def test_an_engine_that_tells_nothing_of_a_prompt_serves_unproven(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = record(tmp_path / "gate", -9.0)
    supervision = Supervision(deployment("silent"), model, "127.0.0.1", recorded)
    supervision.start()
    supervision.stop()
    assert "it tells no log-probabilities of a prompt" in capsys.readouterr().out


def test_weights_whose_scores_are_refused_as_no_numbers_are_not_proven(
    running: Supervision, tmp_path: Path
) -> None:
    assert running._process is not None
    before = running._process.pid
    tell(running, "refusing-nan")
    running.update(record(tmp_path / "v2", -1.0), "v2")  # by a new start, which computes rightly
    assert running._process.pid != before


def test_new_weights_are_proven_by_what_was_recorded_of_them(
    running: Supervision, tmp_path: Path
) -> None:
    assert running._process is not None
    before = running._process.pid
    running.update(record(tmp_path / "v2", -2.01), "v2")
    assert running._process.pid == before
    # Finite, and other than before, but wrong; a new start computes what it always does.
    running.update(record(tmp_path / "v3", -1.0), "v3")
    assert running._process.pid != before
    assert served(running) == str(tmp_path / "v3")
