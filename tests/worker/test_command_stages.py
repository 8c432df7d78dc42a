"""A stage that is a command: any script, started as torchrun would, watched and carried on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import wiring
from orchestrator.adapters.local import LocalCluster
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.command_words import NAMES
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, Message, Points, Succeeded
from orchestrator.worker.rank_environment import applied
from tests.worker.commands import first_line, gone, lines, python, request, said, training
from tests.worker.conftest import Bench

# Written by torch.utils.tensorboard, with text and a histogram among its scalars.
EVENTS = Path(__file__).parents[1] / "jobs" / "commands" / "events.out.tfevents"


# --- what it is told, and what it says ----------------------------------------------------------


def test_each_process_has_its_place_as_torchrun_says_it(bench: Bench) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_PORT")
    source = f"import os; print([os.environ.get(n) for n in {names!r}][:5], flush=True)"
    told = lines(said(bench, {"command": python(source), "processes": 2}))
    assert sorted(told) == [
        "[rank0]: ['0', '2', '0', '2', '0']",
        "[rank1]: ['1', '2', '1', '2', '0']",
    ]


def test_ranks_of_several_workers_and_processes_are_counted_as_torchrun_counts_them(
    bench: Bench,
) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
    source = f"import os; print(*[os.environ[n] for n in {names!r}], flush=True)"
    asked = request(
        bench, {"command": python(source), "processes": 2}, needs=Needs(workers=2, devices=2)
    )
    told = [sorted(lines(messages)) for messages in bench.together(asked)]
    assert told == [
        ["[rank0]: 0 4 0 2 0 0", "[rank1]: 1 4 1 2 0 0"],
        ["[rank2]: 2 4 0 2 1 1", "[rank3]: 3 4 1 2 1 1"],
    ]


def test_it_has_the_env_and_the_secrets_of_its_stage_and_its_lines_show_no_secret(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    command = "echo $MODE $HF_TOKEN; echo $HF_TOKEN > {output}/token"
    asked = request(
        bench, {"command": command}, env={"MODE": "fast"}, secrets={"HF_TOKEN": "hf_not_shown"}
    )
    cluster = LocalCluster(
        bench.stream,
        {"nvidia": replace(asked.pool, devices_per_node=8)},
    )
    cluster.start(asked)
    said: list[Message] = []

    def ended() -> bool:
        said.extend(cluster.poll(asked.key))
        return bool(said) and isinstance(said[-1], Succeeded | Failed)

    until(ended)
    outcome = said[-1]
    assert isinstance(outcome, Succeeded), outcome
    assert lines(said) == ["fast ***"]
    assert outcome.artifact is not None
    assert (bench.store.fetch(outcome.artifact) / "token").read_text() == "hf_not_shown\n"


def test_names_in_its_words_are_filled_in_and_braces_of_others_stay(bench: Bench) -> None:
    words = "{pool.name} {pool.device} {pool.backend} {stage} {attempt} {seed} {x} {{}}"
    told = lines(said(bench, {"command": python("import sys; print(sys.argv[1])", words)}))
    assert told == ["nvidia cuda nccl train 1 7 {x} {{}}"]


def test_names_in_its_environment_variables_are_filled_in_and_secrets_stay(bench: Bench) -> None:
    env = {"SAVE_TO": "{checkpoints}/x", "PATH": "/usr/bin:/bin:/{stage}", "STYLE": "{x} ${run}"}
    params = {"command": 'echo $SAVE_TO {checkpoints}; echo "$PATH"; echo "$STYLE $TOKEN"'}
    # The environment of a worker has them as the config says them; here there is none.
    asked = request(bench, params, env=env)
    with applied({**env, "TOKEN": "{run}"}):
        told = lines([message for batch in bench.stream(asked) for message in batch])
    at, beside = told[0].split(" ")
    assert at == f"{beside}/x"
    assert told[1].endswith("/usr/bin:/bin:/train")
    assert told[2] == "{x} ${run} {run}"


def test_a_line_for_the_shell_is_one(bench: Bench) -> None:
    told = lines(
        said(bench, {"command": "for stage in 1 2; do echo ${stage}-{stage}; done | tail -1"})
    )
    assert told == ["2-train"]


def test_it_reads_its_inputs_and_what_it_leaves_is_the_artifact(bench: Bench) -> None:
    data = bench.artifact("data", {"rows": b"12"})
    command = "cp {inputs.data}/rows {output}/model && echo junk > here"
    messages = said(bench, {"command": command, "result": ["model"]}, inputs={"data": data})
    outcome = messages[-1]
    assert isinstance(outcome, Succeeded)
    assert outcome.artifact is not None
    stored = bench.store.fetch(outcome.artifact)
    assert [path.name for path in stored.iterdir() if path.name != "manifest.json"] == ["model"]
    assert bench.scratch() == []


def test_it_works_in_the_first_folder_of_its_code_whatever_else_is_on_the_path(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    (tmp_path / "own" / "inside").mkdir(parents=True)
    code = {"code": (str(tmp_path / "own"), str(tmp_path / "other"))}
    assert lines(said(bench, {"command": "ls"}, **code)) == ["inside"]
    assert lines(said(bench, {"command": "ls", "workdir": "inside"}, **code)) == []


def test_it_works_in_a_copy_of_its_code(bench: Bench) -> None:
    code = bench.folder / "own"
    code.mkdir(parents=True)
    (code / "train.py").write_text("open('made', 'w').write('x'); print('trained')")
    params = {"command": [sys.executable, "train.py"], "workdir": str(code)}
    assert lines(said(bench, params)) == ["trained"]
    assert [path.name for path in code.iterdir()] == ["train.py"]


def test_metrics_are_found_by_patterns_and_in_lines_of_json(bench: Bench) -> None:
    messages = said(bench, training())
    points = {
        m.step: dict(m.values) for m in messages if isinstance(m, Points) if "loss" in m.values
    }
    assert points[2] == {"loss": 0.5}
    assert isinstance(messages[-1], Succeeded)
    assert messages[-1].metrics == {"loss": 0.167}
    line = json.dumps({"step": 4, "loss": 0.25, "note": "x", "done": True})
    told = said(bench, {"command": ["echo", line]})
    assert [m.values for m in told if isinstance(m, Points)] == [{"loss": 0.25}]


def test_metrics_of_one_process_count_of_whichever_prints_them(bench: Bench) -> None:
    last = """if True:
        import os
        if os.environ["RANK"] == "1": print("step 1 loss 0.5", flush=True)
    """
    params = {"processes": 2, "metrics": training()["metrics"]}
    for source in (last, "print('step 1 loss 0.5')"):
        messages = said(bench, {**params, "command": python(source)})
        assert [m.values for m in messages if isinstance(m, Points)] == [{"loss": 0.5}]


def test_scalars_of_tensorboard_are_metrics_and_what_was_there_before_is_none(
    bench: Bench,
) -> None:
    code = bench.folder / "own"
    (code / "runs").mkdir(parents=True)
    shutil.copy(EVENTS, code / "runs" / "events.out.tfevents.1.old")
    params = {"command": f"cp {EVENTS} runs/", "workdir": str(code), "tensorboard": "runs"}
    messages = said(bench, params)
    points = [(m.step, m.values) for m in messages if isinstance(m, Points)]
    assert [step for step, _ in points] == [1, 2, 3, 4, 5]
    assert points[1][1] == pytest.approx({"loss/train": 0.5, "lr": 0.2, "double": 2.0**40 + 2})
    assert isinstance(messages[-1], Succeeded)
    assert messages[-1].metrics["loss/train"] == 0.125
    told = lines(said(bench, {"command": "true", "tensorboard": "{output}/tb"}))
    assert told == ["no event file of TensorBoard was seen in 'tb'"]


def test_a_pattern_that_fits_nothing_is_told_of_one_that_succeeds(bench: Bench) -> None:
    params = {"command": "echo step=3", "metrics": training()["metrics"]}
    shown, told = lines(said(bench, params))
    assert told.startswith(r"no line fits 'step (?P<step>\\d+) loss (?P<loss>\\S+)' of `metrics`")
    assert lines(said(bench, {**params, "command": "echo step=3; exit 3"})) == [shown]


def test_lines_of_a_file_are_metrics_in_place_of_those_that_are_printed(bench: Bench) -> None:
    """As LLaMA-Factory writes them, beside its checkpoints."""
    point = {"current_steps": 5, "total_steps": 9, "loss": 0.5, "elapsed_time": "0:00:05"}
    line = f"echo '{json.dumps({'step': 3, 'loss': 9})}'; echo '{json.dumps(point)}' >> "
    file = {"file": "{output}/trainer_log.jsonl", "step": "current_steps"}
    messages = said(bench, {"command": line + "{output}/trainer_log.jsonl", "metrics": file})
    points = [(m.step, m.values) for m in messages if isinstance(m, Points)]
    assert points == [(5, {"total_steps": 9.0, "loss": 0.5})]
    none = lines(said(bench, {"command": "true", "metrics": {"file": "log.jsonl"}}))
    assert none == ["no line with metrics and 'step' was seen in 'log.jsonl'"]


def test_mlflow_s_own_client_is_told_of_the_run_of_the_attempt(bench: Bench) -> None:
    show = {"command": "echo ${MLFLOW_RUN_ID:-none}", "mlflow": True}
    bench.tracked_run = lambda: ({"MLFLOW_RUN_ID": "r1"}, "")
    assert lines(said(bench, show)) == ["r1"]
    assert lines(said(bench, {**show, "mlflow": False})) == ["none"]
    bench.tracked_run = lambda: ({}, "http://x is away")
    told = "what the command sends to MLflow is not shown with this attempt: http://x is away"
    assert lines(said(bench, show)) == [told, "none"]


def test_the_names_that_a_plan_knows_are_those_that_are_filled_in(bench: Bench) -> None:
    words = " ".join(f"{{{name}}}" for name in NAMES)
    (told,) = lines(said(bench, {"command": ["echo", words]}))
    assert "{" not in told


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "kind", "told"),
    [
        ({"command": ["no-such"]}, FailureKind.SET_UP, "command 'no-such' can't be run: No such"),
        ({"command": ["sh", "-c", "echo so; exit 3"]}, FailureKind.UNKNOWN, "ended with 3: so"),
        ({"command": "exec no-such"}, FailureKind.SET_UP, "ended with 127"),
        ({"command": "kill -9 $$"}, FailureKind.WORKER_LOST, "was ended by signal 9"),
        ({"command": "kill -SEGV $$"}, FailureKind.SOFTWARE, "was ended by signal 11"),
        (
            {"command": "true", "result": ["model/*.safetensors"]},
            FailureKind.USER_CODE,
            "left no 'model/*.safetensors' in {output}; write it there",
        ),
        (
            {
                "command": "touch {checkpoints}/1.safetensors",
                "checkpoints": {"pattern": "{step}.safetensors"},
                "result": ["**/*.safetensors"],
            },
            FailureKind.USER_CODE,
            "left no '**/*.safetensors' in {output}",
        ),
        ({"command": ["sh", "-c", "{inputs.no}"]}, FailureKind.USER_CODE, "{inputs.no} in"),
        ({"command": "true", "workdir": "no"}, FailureKind.USER_CODE, "workdir 'no' is no folder"),
        (
            {"command": ["sh", "-c", "echo so; exit 77"], "exit_codes": {"77": "storage"}},
            FailureKind.STORAGE,
            "process of 'sh' ended with 77: so",
        ),
        (
            {
                "command": "echo CUDA out of memory >&2; exit 5",
                "exit_codes": {"5": "interconnect"},
            },
            FailureKind.INTERCONNECT,
            "ended with 5",
        ),
        (
            {"command": "exit 5", "exit_codes": {"77": "storage"}},
            FailureKind.UNKNOWN,
            "ended with 5",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_how_it_ends_is_told_in_a_line_of_the_right_kind(
    bench: Bench, params: dict[str, Any], kind: FailureKind, told: str
) -> None:
    signatures = tuple(wiring.settings(["pipeline=noop"]).signatures.values())
    outcome = said(bench, params, signatures=signatures)[-1]
    assert isinstance(outcome, Failed)
    assert told in outcome.failure.evidence
    assert outcome.failure.kind is kind
    assert bench.scratch() == []


def test_what_is_no_utf_8_is_shown_and_what_has_no_end_of_line_too(bench: Bench) -> None:
    assert lines(said(bench, {"command": r"printf '\xff\xfe\nrest'"})) == ["\ufffd\ufffd", "rest"]


def test_what_it_has_forked_ends_with_it(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    told = lines(said(bench, {"command": "sleep 300 > /dev/null 2>&1 & echo $!"}))
    until(lambda: gone(int(told[0])))


def test_a_command_is_asked_to_end_and_killed_where_it_does_not(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    stubborn = "trap 'echo asked > {output}/asked' TERM; echo $$; while true; do sleep 0.1; done"
    asked = replace(request(bench, {"command": stubborn, "grace": 1.0}), kill_after=10.0)
    stream = bench.stream(asked)
    told = first_line(stream)
    stream.close()  # type: ignore[attr-defined]
    assert gone(int(told))
    until(lambda: bench.scratch() == [])
