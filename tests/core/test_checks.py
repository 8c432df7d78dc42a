"""Every impossible pipeline is refused by a line with the path, the value and the way out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.spec.checks import problems_of
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Fleet, Pool, Role
from orchestrator.core.spec.policy import Gate, Limits, Recovery, Watch
from orchestrator.core.spec.stages import Bindings, Endpoint, Needs, OnPool, Pipeline, Stage
from tests.build import accelerator, bindings, fleet, pipeline, pool, stage

CHAT = Endpoint(name="chat", engine="jobs.engines.e", formats=("fp8", "hif8"))
NO_DEVICE = Needs(devices=0)


def lines(*stages: Stage, on: Fleet | None = None, bound: Bindings | None = None) -> list[str]:
    found = problems_of(pipeline(*stages), on or fleet(), bound or bindings())
    return [str(problem) for problem in found]


def on(**changes: object) -> Fleet:
    return fleet(pool("a", **changes))


def needs(**changes: object) -> Stage:
    return stage("s", needs=Needs(**changes))  # type: ignore[arg-type]


def test_a_good_pipeline_has_no_problem() -> None:
    assert lines(stage("s"), stage("t", "s")) == []


def test_an_unknown_pool_is_answered_with_those_that_exist() -> None:
    bound = Bindings(roles={Role.TRAIN: "x"}, fallbacks={Role.TRAIN: ("a", "y")})
    assert lines(stage("s"), bound=bound) == [
        "roles.train: 'x' is not a pool of fleet 'test'; pools of this fleet: a, b, c",
        "fallbacks.train: 'y' is not a pool of fleet 'test'; pools of this fleet: a, b, c",
    ]


def test_a_fleet_without_pools_says_so() -> None:
    empty = Fleet(name="empty", pools={})
    assert all(line.endswith("pools of this fleet: none") for line in lines(stage("s"), on=empty))


def test_a_role_without_a_pool_names_the_stage_and_the_pools() -> None:
    assert lines(stage("s"), bound=Bindings(roles={})) == [
        "roles.train: no pool for stage 's'; set roles.train to one of: a, b, c"
    ]


def test_a_pipeline_without_stages_is_refused() -> None:
    assert lines() == ["pipeline.stages: pipeline 'test' has no stage; add one"]


def test_two_stages_of_one_name_are_refused_once() -> None:
    found = lines(stage("s"), stage("s"), stage("s"), stage("t"))
    assert found == ["pipeline.stages.s: two stages are called 's'; rename one"]


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", "ä", "a\n"])
def test_a_name_that_makes_no_key_is_refused(name: str) -> None:
    (line,) = lines(stage(name))
    assert f"{name!r} is no name for a stage" in line


def test_a_stage_before_that_does_not_exist_is_answered_with_the_stages() -> None:
    found = lines(stage("s", inputs={"data": "dta"}), stage("data"))
    what = (
        "pipeline.stages.s: reads from 'dta', which is not a stage; "
        "did you mean 'data'? stages: data, s"
    )
    assert found == [what]


def test_a_cycle_is_named_in_the_direction_of_the_data() -> None:
    (line,) = lines(stage("a", "c"), stage("b", "a"), stage("c", "b"))
    path = line.removeprefix("pipeline.stages: the stages form a cycle: ")
    path = path.removesuffix("; cut it somewhere")
    assert path in {"a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"}


def test_a_stage_that_reads_from_itself_is_a_cycle() -> None:
    (line,) = lines(stage("s", "s"))
    assert "s -> s" in line


def test_a_stage_has_a_job_or_an_endpoint() -> None:
    both = stage("s", endpoint=CHAT, inputs={"model": "t"})
    open_to_all = on(chip=accelerator(formats=("fp8",)))
    path = "pipeline.stages.s: sets"
    assert lines(stage("s", job=None)) == [
        f"{path} neither of 'job' and 'endpoint'; set one of them"
    ]
    assert lines(stage("t"), both, on=open_to_all) == [
        f"{path} both of 'job' and 'endpoint'; set one of them"
    ]


def test_the_model_of_an_endpoint_is_one_of_its_inputs() -> None:
    open_to_all = on(chip=accelerator(formats=("fp8",)))
    (line,) = lines(stage("s", job=None, endpoint=CHAT), on=open_to_all)
    what = "'model' is not an input of the stage; inputs: none"
    assert line == f"pipeline.stages.s.endpoint.model: {what}"


@pytest.mark.parametrize(
    ("one", "path"),
    [
        (needs(workers=0), "needs.workers"),
        (needs(devices=-1), "needs.devices"),
        (needs(cpus=-0.5), "needs.cpus"),
        (needs(memory_gb=-1.0), "needs.memory_gb"),
        (needs(memory_gb=float("nan")), "needs.memory_gb"),
        (stage("s", limits=Limits(attempts=0)), "limits.attempts"),
        (stage("s", limits=Limits(timeout=-1.0)), "limits.timeout"),
        (stage("s", limits=Limits(pending=-1.0)), "limits.pending"),
        (stage("s", limits=Limits(cost=-1.0)), "limits.cost"),
        (stage("s", limits=Limits(backoff=-1.0)), "limits.backoff"),
        (stage("s", hours=-1.0), "hours"),
    ],
)
def test_a_value_below_its_least_is_refused(one: Stage, path: str) -> None:
    (line,) = lines(one)
    assert line.startswith(f"pipeline.stages.s.{path}: ")
    assert " is too small; set " in line


def test_an_endpoint_has_a_replica() -> None:
    none = Endpoint(name="chat", engine="jobs.engines.e", replicas=0)
    found = lines(stage("t"), stage("s", job=None, endpoint=none, inputs={"model": "t"}))
    assert found == ["pipeline.stages.s.endpoint.replicas: 0 is too small; set 1 or more"]


@pytest.mark.parametrize(
    ("one", "where", "line"),
    [
        (
            stage("s"),
            on(available=False, reason="export ban"),
            ": pool 'a' is not available: export ban; bind another pool",
        ),
        (
            stage("s"),
            on(available=False),
            ": pool 'a' is not available: no reason given; bind another pool",
        ),
        (
            stage("s"),
            on(roles=(Role.PREPARE, Role.SERVE)),
            ": pool 'a' does not take the role 'train'; roles that it takes: prepare, serve",
        ),
        (
            needs(workers=3, devices=3),
            on(),
            ".needs: needs 9 devices, 'a' has 8; ask for fewer, or bind a larger pool",
        ),
        (
            needs(devices=9),
            on(nodes=2),
            ".needs.devices: needs 9 devices in one worker, a node of 'a' has 8; ask for fewer",
        ),
        (
            needs(devices=0, cpus=17),
            on(nodes=2),
            ".needs.cpus: needs 17 cores in one worker, a node of 'a' has 16; ask for fewer",
        ),
    ],
)
def test_what_a_pool_can_not_do_is_one_line(one: Stage, where: Fleet, line: str) -> None:
    assert lines(one, on=where) == [f"pipeline.stages.s{line}"]


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (
            needs(workers=3, devices=5),
            "3 workers with 5 devices and 1.0 cores each, 'a' has room for 2",
        ),
        (
            needs(workers=9, devices=0, cpus=4),
            "9 workers with 0 devices and 4 cores each, 'a' has room for 8",
        ),
    ],
)
def test_a_worker_must_fit_on_one_node_whole(one: Stage, line: str) -> None:
    assert lines(one, on=on(nodes=2)) == [f"pipeline.stages.s.needs: needs {line}; ask for fewer"]


def test_too_little_memory_is_refused_with_both_figures() -> None:
    chip = accelerator(memory_gb=80.0)
    (line,) = lines(needs(memory_gb=100.0), on=on(chip=chip))
    assert line == (
        "pipeline.stages.s.needs.memory_gb: needs 100.0 GB in a worker, "
        "'Chip 1' has 80.0 GB a chip; use more devices, or another pool"
    )


def test_memory_is_that_of_all_the_chips_of_a_worker() -> None:
    chip = accelerator(memory_gb=80.0)
    assert lines(needs(memory_gb=100.0, devices=2), on=on(chip=chip)) == []
    assert lines(needs(memory_gb=100.0, devices=2), on=on(chip=accelerator())) == []


def test_work_without_devices_fits_by_its_cores_alone() -> None:
    assert lines(needs(workers=16, devices=0), on=on(devices_per_node=0)) == []
    assert lines(needs(workers=99, devices=0, cpus=0), on=on(devices_per_node=0)) == []


def test_a_fallback_is_checked_like_the_chosen_pool() -> None:
    small: Pool = pool("b", devices_per_node=1)
    found = lines(needs(devices=2), on=fleet(pool("a"), small), bound=bindings("a", "b"))
    assert [line.split(",")[0] for line in found] == ["pipeline.stages.s.needs: needs 2 devices"]


def test_all_problems_are_found_at_once() -> None:
    bound = Bindings(roles={Role.TRAIN: "x"})
    broken: Pipeline = pipeline(stage("s", "gone"), stage("s"), stage("t", "t", hours=-1.0))
    paths = [problem.path for problem in problems_of(broken, fleet(), bound)]
    assert paths == [
        "roles.train",
        "pipeline.stages.s",
        "pipeline.stages",
        "pipeline.stages.t.hours",
    ]


# --- gates, gangs, recoveries -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gate": Gate(kind="file")}, "gate.target: a gate of kind 'file' has none; set it"),
        ({"gate": Gate(kind="url", target="ftp://x")}, "gate.target: 'ftp://x' is no URL; "),
        ({"gate": Gate(kind="url", target="http://")}, "gate.target: 'http://' is no URL; "),
        ({"gate": Gate(kind="url", target="http://[::1")}, "gate.target: 'http://[::1' is no "),
        ({"gate": Gate(kind="url", target="http://h:x/")}, "gate.target: 'http://h:x/' is no "),
        ({"gate": Gate(kind="approval", least=0)}, "gate.least: 0 is too small; set 1 or more"),
        ({"needs": Needs(workers=2, min_workers=3)}, "needs.min_workers: 3 is more than the 2 "),
        ({"recovery": Recovery(keep=0)}, "recovery.keep: 0 is too small; set 1 or more"),
        ({"watch": Watch(hang=0.5)}, "watch.hang: 0.5 is too small; set 1 or more"),
        (
            {"on_failure": {FailureKind.USER_CODE: Action.FALL_BACK}},
            "on_failure.user_code: 'fall_back' can't help against 'user_code': it fails the same",
        ),
        (
            {"on_failure": {FailureKind.UNSUPPORTED_OPERATOR: Action.RETRY}},
            "on_failure.unsupported_operator: 'retry' can't help",
        ),
        (
            {"on_failure": {FailureKind.PARITY: Action.FALL_BACK}},
            "on_failure.parity: 'fall_back' can't help against 'parity': what is served must",
        ),
        (
            {"on_failure": {FailureKind.CANCELLED: Action.RETRY}},
            "on_failure.cancelled: 'retry' can't help against 'cancelled': somebody wanted it to",
        ),
        (
            {"on_failure": {FailureKind.TIME: Action.FALL_BACK}},
            "on_failure.time: 'fall_back' can't help against 'time': what is used up stays so",
        ),
    ],
)
def test_what_can_not_work_is_refused(changes: dict[str, object], line: str) -> None:
    (found,) = lines(stage("s", **changes))
    assert found.startswith(f"pipeline.stages.s.{line}")


def test_an_elastic_gang_needs_room_for_its_fewest_workers_alone() -> None:
    assert lines(stage("s", needs=Needs(workers=20, min_workers=8))) == []
    (found,) = lines(stage("s", needs=Needs(workers=20, min_workers=9)))
    assert "needs 9 devices, 'a' has 8" in found


# --- names, chips -----------------------------------------------------------------------------


def test_a_name_has_a_length_and_is_shown_shortened() -> None:
    long = "a" * 300
    way_out = "use up to 63 letters, digits, and between them '_', '.' and '-'"
    said = f"'{'a' * 80}'... (300 characters) is no name for"
    chat = Endpoint(name=long, engine="jobs.engines.e")
    whole = Pipeline(
        name=long,
        stages=(stage(long), stage("s", job=None, endpoint=chat, inputs={"model": long})),
    )
    path = f"pipeline.stages.{'a' * 71}...{'a' * 30}"
    assert [str(p) for p in problems_of(whole, on(), bindings())] == [
        f"{path}: {said} a stage; {way_out}",
        f"pipeline.name: {said} a pipeline; {way_out}",
        f"pipeline.stages.s.endpoint.name: {said} an endpoint; {way_out}",
    ]
    assert lines(stage("a" * 63)) == []


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a/b", "\u00e4"])
def test_a_name_begins_and_ends_with_a_letter_or_a_digit(name: str) -> None:
    (line,) = lines(stage(name))
    assert "is no name for a stage" in line


def test_workers_that_could_not_be_shown_chips_of_their_own_take_a_whole_node() -> None:
    chip = accelerator(resource="PPU")
    (line,) = lines(needs(devices=4), on=on(chip=chip))
    assert line == (
        "pipeline.stages.s.needs.devices: a node of 'a' has 8 chips, of which no worker can be "
        "shown its own; ask for all of a node, or set "
        "fleet.pools.a.accelerator.visible_devices"
    )
    assert lines(needs(devices=8), on=on(chip=chip)) == []
    assert lines(needs(devices=0), on=on(chip=chip)) == []
    assert lines(needs(devices=4), on=on(chip=chip, emulation=Emulation())) == []
    seen = accelerator(resource="PPU", visible_devices="PPU_VISIBLE_DEVICES")
    assert lines(needs(devices=4), on=on(chip=seen)) == []


def test_many_stages_that_read_from_nowhere_are_each_told_of() -> None:
    found = lines(*(stage(f"s{n}", f"gone{n}") for n in range(50)))
    assert len(found) == 50
    assert "stages: s0, " in found[0]
    assert found[-1].endswith("which is not a stage")


def test_a_long_cycle_is_cut() -> None:
    many = [stage(f"s{n}", f"s{(n + 1) % 500}") for n in range(500)]
    (line,) = lines(*many)
    assert " -> ... -> " in line


# --- by pool ----------------------------------------------------------------------------------


def test_a_fallback_of_another_size_is_asked_for_what_it_has() -> None:
    small = fleet(pool("a", nodes=4), pool("b"))
    wide = stage("s", needs=Needs(workers=32))
    (line,) = lines(wide, on=small, bound=bindings("a", "b"))
    assert line.startswith("pipeline.stages.s.needs: needs 32 devices, 'b' has 8; ")
    fits = replace(wide, on={"b": OnPool(needs=Needs(workers=8))})
    assert lines(fits, on=small, bound=bindings("a", "b")) == []
    too_wide = replace(wide, on={"b": OnPool(needs=Needs(workers=9))})
    (line,) = lines(too_wide, on=small, bound=bindings("a", "b"))
    assert line.startswith("pipeline.stages.s.on.b.needs: needs 9 devices, 'b' has 8; ")


def test_what_is_said_of_a_pool_that_is_not_there_is_refused() -> None:
    known = "is not a pool of fleet 'test'; pools of this fleet: a, b, c"
    assert lines(stage("s", pool="x", on={"y": OnPool()})) == [
        f"pipeline.stages.s.pool: 'x' {known}",
        f"pipeline.stages.s.on: 'y' {known}",
    ]


def test_figures_of_a_pool_have_bounds_too() -> None:
    needs = Needs(workers=2, min_workers=3)
    broken = stage("s", on={"a": OnPool(needs=needs, watch=Watch(hang=0.0))})
    paths = {line.partition(":")[0] for line in lines(broken)}
    where = "pipeline.stages.s.on.a"
    assert paths >= {f"{where}.watch.hang", f"{where}.needs.min_workers"}


def test_a_stage_that_names_its_pool_needs_none_for_its_role() -> None:
    assert lines(stage("s", pool="b"), bound=Bindings(roles={})) == []
    serving = stage("s", "m", pool="b", job=None, endpoint=CHAT, inputs={"model": "m"})
    assert not any("stages.s.pool" in line for line in lines(stage("m"), serving))
    assert Bindings(roles={Role.TRAIN: "a"}).order(serving) == ("b",)


def test_a_model_is_written_alike_on_all_pools() -> None:
    writes = stage("s", params={"format": "fp8"}, on={"b": OnPool(params={"format": "bf16"})})
    (line,) = lines(writes)
    assert line.startswith("pipeline.stages.s.on.b.params.format: a model is written alike")
