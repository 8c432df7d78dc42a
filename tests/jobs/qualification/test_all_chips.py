"""The checks of a whole gang: two processes over gloo, and one by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.qualification import training
from jobs.qualification.all_chips import qualify_gang
from jobs.qualification.bench import FAILED, LIMITED, PASSED, Bench
from jobs.qualification.curve import ShortTraining, Trained, train
from jobs.qualification.host_reference import BF16, FLOAT32, TF32, HostReference, qualify_reference
from jobs.training.process_group import ProcessGroup
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SMALL
from tests.jobs.scripts import printed_by

PARAMS: dict[str, Any] = {"model": SMALL, "steps": 3, "soak_seconds": 0.0, "quick": True}


def findings(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    told = json.loads((folder / "output" / "report.json").read_text())
    return {(one["check"], one["subject"]): one for one in told["findings"]}


def forked(folder: Path, job: str, **spec: object) -> None:
    """Run a job in processes that are forked after the imports."""
    common = {"job": job, "inputs": {}, "store": str(folder / "store"), "folder": str(folder)}
    printed_by("qualification.forked_gang", {**common, **spec})


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What two workers find of each other."""
    folder = tmp_path_factory.mktemp("gang")
    host = LocalContext(folder=folder / "host")
    qualify_reference(host, model=SMALL, roles=["train"], steps=PARAMS["steps"])
    given = {"reference": str(host.output)}
    forked(folder, "jobs.qualification.all_chips.qualify_gang", params=PARAMS, inputs=given)
    return findings(folder)


def test_links_within_and_between_nodes_and_each_nodes_group_are_measured(tmp_path: Path) -> None:
    nodes = {"names": ["a", "a", "b"]}
    forked(tmp_path, "tests.jobs.qualification.forked_gang.links", params=nodes, workers=3)
    found = {one["subject"]: one["status"] for one in findings(tmp_path).values()}
    kinds = ("within a node", "between nodes", "all-reduce of a node")
    assert found == dict.fromkeys(kinds, "passed")


@pytest.mark.parametrize(
    ("broken", "subject", "note"),
    [
        ("sums", "all-reduce of a node", "wrong in 4 of 4 repeats"),
        ("bit", "within a node", "rank 1 got other bits than rank 0 sent in 3 of 3 exchanges"),
    ],
)
def test_what_goes_wrong_within_a_node_alone_fails_the_pool(
    tmp_path: Path, broken: str, subject: str, note: str
) -> None:
    given = {"names": ["a", "a", "b"], "broken": broken}
    forked(tmp_path, "tests.jobs.qualification.forked_gang.links", params=given, workers=3)
    found = findings(tmp_path)["links", subject]
    assert (found["status"], found["note"].startswith(note)) == ("failed", True), found


def test_collectives_are_right_and_measured_by_size(
    together: dict[tuple[str, str], dict[str, Any]],
) -> None:
    found = {subject: one for (check, subject), one in together.items() if check == "collectives"}
    assert {subject.partition(" ")[0] for subject in found} == {
        *("all-reduce", "all-gather", "reduce-scatter", "broadcast", "all-to-all", "send"),
    }
    assert {subject.split(" ", 1)[1][-6:].strip() for subject in found} == {"16 KiB", "1 MiB"}
    assert {"all-reduce bfloat16 1 MiB", "all-reduce (max) int64 1 MiB"} <= found.keys()
    assert all(one["status"] == "passed" and one["figure"] > 0 for one in found.values())


def test_a_healthy_gang_trains_as_the_host_does_twice_alike_and_saves(
    together: dict[tuple[str, str], dict[str, Any]],
) -> None:
    wanted = (
        ("determinism", "training"),
        ("reference", "loss"),
        ("checkpoint", "written and read"),
    )
    assert [together[key]["status"] for key in wanted] == ["passed"] * 3


def test_one_worker_has_nobody_to_talk_to(tmp_path: Path) -> None:
    qualify_gang(LocalContext(folder=tmp_path), **{**PARAMS, "soak_seconds": 0.01})
    found = findings(tmp_path)
    assert found["collectives", "all"]["status"] == "skipped"
    assert found["soak", "0.01 s"]["status"] == "passed"
    assert found["reference", "loss"]["status"] == "limited"


def test_a_gang_of_more_workers_than_rows_learns_what_one_worker_does(bench: Bench) -> None:
    """Rows repeat, so that each worker has one, and their mean stays."""
    recipe = ShortTraining("llama", SMALL, 3, seed=5)
    alone = train(recipe, bench.group, bf16=False, sign=bench.step).losses

    class Crowd(ProcessGroup):
        """All workers of a gang in one: it takes everybody's rows."""

        def share(self, rows: torch.Tensor) -> torch.Tensor:
            parts = [part for part in rows.tensor_split(11) if len(part)]
            assert len(parts) == 11
            return rows

        def all(self, true: torch.Tensor) -> bool:
            return bool(true)

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            return values

        def wrap(self, model: torch.nn.Module, loss: object) -> torch.nn.Module:
            return model

    crowd = Crowd(bench.ctx)
    crowd.size = 11
    many = train(recipe, crowd, bf16=False, sign=bench.step).losses
    # gradients are those of eleven, which clipping and AdamW undo here
    assert many == pytest.approx(alone, rel=1e-4)


def trained(*losses: float) -> Trained:
    torch.manual_seed(0)
    return Trained(list(losses), torch.nn.Linear(2, 2), torch.optim.SGD([torch.zeros(1)]))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalContext(folder=tmp_path))


def test_a_loss_that_is_no_number_is_found_with_its_step(bench: Bench) -> None:
    training._check_finite(bench, [1.0, float("nan")])
    assert (bench.findings[0].status, bench.findings[0].note) == (
        FAILED,
        "the loss of step 2 is nan",
    )


HOST = HostReference(
    losses={FLOAT32: [1.0, 1.0, 1.0], TF32: [1.0, 1.0, 1.0], BF16: [1.0, 1.01, 1.0]},
    strays={},
    logits=torch.empty(0),
)


@pytest.mark.parametrize(
    ("losses", "arithmetic", "status"),
    [
        ([1.0, 1.0009, 1.0], TF32, PASSED),
        ([1.0, 1.0011, 1.0], TF32, FAILED),
        ([1.0, 1.0, 1.029], BF16, PASSED),  # noise stays, once it is there
        ([1.0, 1.031, 1.0], BF16, FAILED),
        ([1.002, 1.0, 1.0], BF16, FAILED),  # before there is any
        ([1.0, float("nan"), 1.0], BF16, FAILED),
        ([1.0, 1.0], BF16, LIMITED),
    ],
)
def test_a_loss_may_leave_the_curve_of_the_host_by_the_noise_of_its_arithmetic(
    bench: Bench, losses: list[float], arithmetic: str, status: str
) -> None:
    training._check_curve(bench, losses, HOST, arithmetic)
    assert [one.status for one in bench.findings] == [status]


def test_no_noise_excuses_a_loss_that_is_a_tenth_off() -> None:
    wild = replace(HOST, losses={**HOST.losses, BF16: [1.0, 2.0, 1.0]})
    assert wild.allowed_losses(BF16) == [1e-3, 0.1, 0.1]


def test_one_seed_that_gives_two_trainings_is_a_limit(bench: Bench) -> None:
    training._check_same(bench, trained(1.0, 2.0), trained(1.0, 2.1))
    other = trained(1.0)
    torch.nn.init.zeros_(other.model.weight)  # type: ignore[arg-type]
    training._check_same(bench, trained(1.0), other)
    assert [one.status for one in bench.findings] == [LIMITED, LIMITED]
    assert bench.findings[0].note == "with one seed, the losses part at step 2"
    assert bench.findings[1].note.endswith("the weights are not")
