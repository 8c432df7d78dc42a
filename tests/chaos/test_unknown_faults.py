"""Faults that nobody has heard of: a run ends as an undisturbed one, or pauses and then does.

By hand: `make chaos`. CHAOS_SEED and CHAOS_UNKNOWN change the words, the steps and their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from string import ascii_lowercase

import pytest

from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState
from tests.chaos.storm import Storm, left_running
from tests.conftest import Workplace

SEED = int(os.environ.get("CHAOS_SEED", "1"))  # noqa: TID251 - a test's own
FAULTS = int(os.environ.get("CHAOS_UNKNOWN", "20"))  # noqa: TID251 - as above
STEPS = 60
EVERY = 5
USUAL = "{backoff: 0.1}"
PAUSED = 101
SECONDS = 300.0
MOST_RESUMES = 4
OTHERS = 0.5  # share of the runs that have another pool to go to
IN_PROCESS = ("cluster.kind=local", "tracking.enabled=false")
ERRORS = (
    "RuntimeError",
    "VendorPanic",
    "Exception",
    "OSError",
    "KeyError",
    "ValueError",
    "ConnectionError",
    "XpuStreamError",
    "ArithmeticError",
    "AssertionError",
)
NATIVE = ("print", "abort", "exit")
CODES = [code for code in range(2, 256) if code not in {100, PAUSED}]  # those are the controller's


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fault of made-up words, at a step, in the first so many attempts."""

    what: str
    text: str
    step: int
    attempts: int
    error: str = ""
    code: int = 1

    def __str__(self) -> str:
        """Return it as an element of `emulation.faults`."""
        facts = f"what: {self.what}, text: '{self.text}', at_step: {self.step}"
        facts += f", attempts: {self.attempts}, stages: [pretrain]"
        facts += f", error: {self.error}" if self.error else ""
        facts += f", code: {self.code}" if self.what == "exit" else ""
        return f"{{{facts}}}"


def unknown(dice: Random, number: int, *, step: int, attempts: int) -> Unknown:
    """Return a fault that no signature can know."""
    words = ["".join(dice.choices(ascii_lowercase, k=dice.randint(3, 9))) for _ in range(4)]
    text = f"{words[0]}: unit {dice.randint(0, 9)} of {words[1]} said {dice.randint(0, 255):#04x}"
    text = dice.choice([text, f"[{words[2]}] {text}", f"{text} ({words[3]})", words[0]])
    if number % 3 == 1:  # of every three, one comes out of native code
        what = NATIVE[number // 3 % len(NATIVE)]
        return Unknown(what, text, step, attempts, code=dice.choice(CODES))
    return Unknown("raise", text, step, attempts, error=ERRORS[number % len(ERRORS)])


def one_an_attempt(dice: Random, steps: int) -> list[Unknown]:
    """Return faults of which the nth, by its step, ends the nth attempt alone."""
    chosen = sorted(dice.sample(range(EVERY + 1, steps, EVERY + 3), FAULTS))
    faults: list[Unknown] = []
    for number, step in enumerate(chosen):
        ended = sum(fault.what != "print" for fault in faults)
        faults.append(unknown(dice, number, step=step, attempts=ended + 1))
    return faults


def outcome(run: Run) -> tuple[Mapping[str, float], str]:
    """Return what a run has learnt: its losses, and the digest of its weights."""
    stage = run.stages["pretrain"]
    losses = {key: stage.metrics[key] for key in ("train/loss", "validation/loss")}
    assert stage.artifact is not None
    return losses, stage.artifact.digest


def finish(storm: Storm, *, native: bool) -> int:
    """Drive a run to success, by `resume` where it paused; return how often that was.

    In a cluster of one process a native end is that of the controller too.
    """
    resumes = 0
    while (code := storm.finish(SECONDS)) != 0:
        ended = native and code not in {0, 100, PAUSED}
        told = storm.told()
        assert ended or code == PAUSED, (code, told.state, told.reason)
        assert ended or told.state is RunState.PAUSED, told.reason
        resumes += 1
        assert resumes <= MOST_RESUMES, told.reason
        storm.resume()
    assert storm.told().state is RunState.SUCCEEDED
    return resumes


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Iterator[Workplace]:
    yield workplace
    workplace.run("down", "--yes")
    assert left_running(workplace.folder) == []


@pytest.fixture(scope="module")
def undisturbed(place: Workplace) -> tuple[Mapping[str, float], str]:
    storm = Storm(place, seed=0, steps=STEPS, every=EVERY, size=1, limits=USUAL)
    storm.launch("roles.train=nvidia", *IN_PROCESS)
    assert storm.finish(SECONDS) == 0
    return outcome(storm.told())


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(FAULTS))
def test_a_run_that_meets_the_unknown_ends_as_an_undisturbed_one_or_pauses_and_goes_on(
    place: Workplace, undisturbed: tuple[Mapping[str, float], str], number: int
) -> None:
    dice = Random(f"{SEED}/{number}")  # noqa: S311 - a die, no secret
    # a chip that errs for good is left for another; where there is none, the run pauses
    elsewhere = dice.random() < OTHERS
    attempts = dice.choice([1, 2, 3, 9] if elsewhere and number % 3 != 1 else [1, 2, 3])
    fault = unknown(dice, number, step=dice.randint(2, STEPS - 2), attempts=attempts)
    print(f"{number}: {fault}, {'elsewhere' if elsewhere else 'nowhere else'}", flush=True)
    storm = Storm(place, seed=SEED, steps=STEPS, every=EVERY, size=1, limits=USUAL)
    pools = [f"fallbacks.train={['ascend'] if elsewhere else []}"]
    pools += [f"fleet.pools.nvidia.emulation.faults=[{fault}]"]
    storm.launch("roles.train=nvidia", *IN_PROCESS, *pools)
    resumes = finish(storm, native=fault.what in NATIVE)
    run = storm.told()
    print(f"{len(run.stages['pretrain'].attempts)} attempts, resumed {resumes} times", flush=True)
    assert outcome(run) == undisturbed


@pytest.mark.chaos
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_one_run_meets_them_all_on_a_cluster(tmp_path: Path, environment: dict[str, str]) -> None:
    dice, steps = Random(SEED), 20 * FAULTS  # noqa: S311 - as above
    place = Workplace(tmp_path, environment)
    try:
        calm = Storm(place, seed=0, steps=steps, every=EVERY, size=1)
        calm.launch("roles.train=nvidia")
        assert calm.finish(SECONDS) == 0
        faults = one_an_attempt(dice, steps)
        storm = Storm(place, seed=SEED, steps=steps, every=EVERY, size=1, limits=USUAL)
        text = ", ".join(map(str, faults))
        pools = [f"fleet.pools.{pool}.emulation.faults=[{text}]" for pool in ("nvidia", "ascend")]
        storm.launch("roles.train=nvidia", *pools)
        resumes = finish(storm, native=False)
        found = storm.told()
        print(f"{len(found.stages['pretrain'].attempts)} attempts, resumed {resumes} times")
        assert outcome(found) == outcome(calm.told())
    finally:
        place.run("down", "--yes")
    assert left_running(place.folder) == []
