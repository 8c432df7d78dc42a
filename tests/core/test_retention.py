"""What may be forgotten of runs, and what never is."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.retention import DAY, Retention, Uses, disposable, name_of
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState, StageState
from tests.build import header, plan, stage

NOW = 1000 * DAY
ALL = Retention(newest=0, days=0.0)


def model(run: str, digest: str = "") -> ArtifactRef:
    return ArtifactRef(f"s3://bucket/base/{run}/s/1", digest or f"digest of {run}", 9)


def over(
    name: str,
    days: float,
    state: RunState = RunState.SUCCEEDED,
    artifact: ArtifactRef | None = None,
    continues: str = "",
) -> Run:
    """Return a run that ended `days` ago, and made a model."""
    run = begin(replace(header(plan(stage("s")), name), continues=continues))
    made = replace(run.stages["s"], artifact=artifact or model(name), state=StageState.SUCCEEDED)
    return replace(run, state=state, ended=NOW - days * DAY, stages={"s": made})


def names(runs: object) -> list[str]:
    return [run.header.run for run in runs]  # type: ignore[attr-defined]


def test_the_newest_and_the_young_are_kept_and_the_oldest_go_first() -> None:
    runs = [over(f"run-{days}", days) for days in (1, 40, 20, 60, 50)]
    gone = disposable(runs, Uses(), Retention(newest=2, days=30.0), NOW)
    assert names(gone.whole) == ["run-60", "run-50", "run-40"]
    assert gone.results == []
    gone = disposable(runs, Uses(), Retention(newest=4, days=30.0), NOW)
    assert names(gone.whole) == ["run-60"]


def test_what_is_not_over_or_can_be_resumed_is_kept_unless_that_is_asked_for() -> None:
    states = (RunState.RUNNING, RunState.PENDING, RunState.CANCELLING)
    runs = [over(f"live-{state}", 900, state) for state in states]
    runs += [over(f"{s}", 900, s) for s in (RunState.FAILED, RunState.PAUSED, RunState.CANCELLED)]
    assert names(disposable(runs, Uses(), ALL, NOW).whole) == []
    asked = disposable(runs, Uses(), replace(ALL, resumable=True), NOW)
    assert sorted(names(asked.whole)) == ["cancelled", "failed", "paused"]


def test_what_a_run_goes_on_from_is_kept_while_it_is_not_over() -> None:
    first, second = over("first", 90), over("second", 80, RunState.RUNNING, continues="first")
    assert names(disposable([first, second], Uses(), ALL, NOW).whole) == []
    ended = replace(second, state=RunState.SUCCEEDED)
    assert names(disposable([first, ended], Uses(), ALL, NOW).whole) == ["first", "second"]


def test_artifacts_that_a_kept_run_reused_stay_with_who_made_them() -> None:
    maker = over("maker", 90)
    user = over("user", 5, artifact=model("maker"))
    gone = disposable([maker, user], Uses(), Retention(newest=0, days=30.0), NOW)
    assert (names(gone.whole), names(gone.results)) == ([], ["maker"])


def test_what_those_use_that_are_used_stays_too() -> None:
    first = over("first", 90)
    second = over("second", 80, artifact=model("first", "same"))
    third = over("third", 5, artifact=model("second"))
    gone = disposable([first, second, third], Uses(), Retention(newest=0, days=30.0), NOW)
    assert (names(gone.whole), names(gone.results)) == ([], ["first", "second"])


def test_a_champion_never_goes_nor_what_a_live_endpoint_serves() -> None:
    runs = [over("champion", 900), over("served", 800), over("deployer", 700), over("none", 600)]
    uses = Uses(
        runs=["deployer"], artifacts=[model("served")], digests=["digest of champion", "elsewhere"]
    )
    gone = disposable(runs, uses, replace(ALL, resumable=True), NOW)
    assert (names(gone.whole), names(gone.results)) == (["none"], ["champion", "served"])


def test_a_model_of_the_same_contents_as_a_champion_stays_whoever_made_it() -> None:
    runs = [over(name, 900, artifact=model(name, "x")) for name in ("first", "second")]
    gone = disposable(runs, Uses(digests=["x"]), ALL, NOW)
    assert names(gone.whole) == []


def test_the_name_of_an_artifact_is_the_end_of_its_address() -> None:
    ref = ArtifactRef("file:///a%20b/artifacts/run-1/train/2", "d", 1)
    assert name_of(ref) == "run-1/train/2"
