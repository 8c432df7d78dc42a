"""What of a stage that is a command can never work is told before any hardware is touched."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.spec.checks import problems_of
from orchestrator.core.spec.command_stages import JOB, LAYOUTS, spread_layout
from orchestrator.core.spec.policy import Limits
from orchestrator.core.spec.stages import Needs, OnPool, Stage
from tests.build import bindings, fleet, pipeline, stage

WRITES = {"command": ["train", "{checkpoints}"]}
RESUMES = {"resume": ["{checkpoint}"], "checkpoints": {"pattern": "{step}"}}


def command(params: dict[str, Any], **changes: Any) -> Stage:
    limits = {"limits": Limits(kill_after=35.0), **changes}
    return stage("s", job=JOB, params={"command": "train", **params}, **limits)


def lines(params: dict[str, Any], **changes: Any) -> list[str]:
    found = problems_of(pipeline(command(params, **changes)), fleet(), bindings())
    return [str(problem).removeprefix("pipeline.stages.s.") for problem in found]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_command_that_says_all_that_it_may_has_no_problem(layout: str) -> None:
    params = {
        "command": "train {inputs.data} {output} {checkpoints} ${outputs} {x} --name 'x-{step}'",
        "resume": ["--load", "{checkpoint}"],
        "checkpoints": spread_layout({"layout": layout}),
        "metrics": [r"step (?P<step>\d+) loss (?P<loss>\S+)"],
        "result": ["model/*.safetensors"],
        "processes": 8,
        "grace": 30.0,
    }
    other = stage("data")
    found = problems_of(
        pipeline(other, command(params, inputs={"data": "data"})), fleet(), bindings()
    )
    assert [*found] == []


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"command": " "}, "command: is empty; write what shall run"),
        ({"command": []}, "command: is empty; write what shall run"),
        ({"command": ["a", "{inputs.no}"]}, "command: {inputs.no} stands for nothing; names: "),
        ({"command": "{pool.vendor}"}, "command: {pool.vendor} stands for nothing; did you mean"),
        ({"command": "{outputs}"}, "command: {outputs} stands for nothing; did you mean 'output'"),
        ({"command": "{input.data}"}, "command: {input.data} stands for nothing; "),
        ({"resume": ["x"]}, "resume: is never added: there is nothing to go on from without"),
        (
            {**RESUMES, "command": "train {checkpoints} 2>&1 | tee log"},
            "resume: would be added to the last command of a line that is more than one; write",
        ),
        (
            {**RESUMES, "command": ["bash", "-ec", "train {checkpoints} | tee log"]},
            "resume: is read by no command in the line of a shell that is one of the words; wr",
        ),
        (
            {**RESUMES, "command": ["train", "{checkpoints}", "--load={resume}"]},
            "command: '--load={resume}' holds {resume}, which is a word of its own; write the",
        ),
        ({"command": "train {resume}"}, "command: {resume} is always empty without `resume`"),
        (
            {**RESUMES, **WRITES, "resume": ["{resume}"]},
            "resume: {resume} stands for nothing; names: ",
        ),
        ({"command": "{checkpoint}"}, "command: {checkpoint} is always empty without"),
        (
            {"checkpoints": spread_layout({"layout": "dcp"})},
            "checkpoints: no word of the command names {checkpoints}, the folder where",
        ),
        (
            {**WRITES, "checkpoints": {"layout": "dpc"}},
            "checkpoints.layout: 'dpc' is no layout that is known; did you mean 'dcp'?",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "a-{step}", "compleet": "x"}},
            "checkpoints.compleet: a checkpoint has no 'compleet'; did you mean 'complete'?",
        ),
        ({**WRITES, "checkpoints": {}}, "checkpoints.pattern: '' has no {step}; write a path"),
        (
            {**WRITES, "checkpoints": {"pattern": "{step}/{step}"}},
            "checkpoints.pattern: '{step}/{step}' has 2 of {step}; write a path below",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "{checkpoints}/{step}"}},
            "checkpoints.pattern: '{checkpoints}/{step}' has braces of others, and fits nothing",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "**/step-{step}"}},
            "checkpoints.pattern: '**/step-{step}' fits nothing: ?, [ and ** stand for themselves",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "./step-{step}"}},
            "checkpoints.pattern: './step-{step}' never fits: it is no plain relative path",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "/x/{step}"}},
            "checkpoints.pattern: '/x/{step}' never fits: it is no plain relative path",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "{step}", "complete": "../x"}},
            "checkpoints.complete: '../x' never fits: it is no plain relative path",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "{step}", "settle": -1}},
            "checkpoints.settle: -1 is out of bounds; write seconds, 0 or more",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "{step}", "tracker": "t", "settle": 9}},
            "checkpoints.settle: is not looked at: 'tracker' says when a checkpoint is whole",
        ),
        ({"metrics": ["("]}, "metrics.0: '(' is no regular expression: missing ), "),
        (
            {"metrics": [r"(?P<step>\d) (?P<x>.)", "loss (?P<loss>.*)"]},
            "metrics.1: 'loss (?P<loss>.*)' finds no metrics: it has no group 'step'; name",
        ),
        ({"metrics": [r"(?P<step>\d)"]}, "finds no metrics: it has no group of a metric; name"),
        ({"metrics": {"step": "s"}}, "metrics: names no `file`; write the file of JSON lines"),
        ({"metrics": {"file": "../x"}}, "metrics.file: '../x' is of other attempts, too; write"),
        ({"metrics": {"file": "{ouput}/x"}}, "metrics.file: {ouput} stands for nothing; did you"),
        (
            {"metrics": {"file": "x", "steps": "s"}},
            "metrics.steps: a file of metrics has no 'steps'; did you mean 'step'?",
        ),
        ({"result": ["a", "/b"]}, "result.1: '/b' is never found in {output}; write a path"),
        ({"result": ["{output}/a"]}, "result.0: '{output}/a' is never found in {output}; write"),
        ({"processes": 0}, "processes: 0 is out of bounds; 1 to 1024, of each worker"),
        (
            {"tensorboard": "/runs"},
            "tensorboard: '/runs' is of other attempts, too; write",
        ),
        ({"tensorboard": "{outputs}/tb"}, "tensorboard: {outputs} stands for nothing; did you"),
        (
            {"exit_codes": {"0": "storage"}},
            "exit_codes.0: '0' is no exit code of a failure; 1 to 255",
        ),
        (
            {"exit_codes": {"77": "stroage"}},
            "'stroage' is no kind of failure that a job can know of; did you mean 'storage'?",
        ),
        (
            {"exit_codes": {"77": "cancelled"}},
            "exit_codes.77: 'cancelled' is no kind of failure that a job can know of; kinds: data",
        ),
        (
            {**WRITES, "checkpoints": {"pattern": "{step}", "reshard": 1}},
            "checkpoints.reshard: 1 is neither true nor false; say whether any number of ranks",
        ),
        ({"grace": 900}, "grace: 900 is out of bounds; 0 to 590 seconds"),
        (
            {"grace": 60},
            "grace: 60 s are never given: limits.kill_after kills its worker after 35 s; raise",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_can_never_work_is_a_line_at_the_key_that_says_it(
    params: dict[str, Any], line: str
) -> None:
    (told,) = lines(params)
    assert line in told


def test_names_in_its_environment_variables_count_and_stand_for_something() -> None:
    params = {"checkpoints": {"pattern": "{step}"}}
    assert lines(params, env={"SAVE_TO": "{checkpoints}", "STYLE": "{x} ${output}"}) == []
    told = lines({}, env={"A": "{inputs.no}", "B": "{ouptut}", "C": "{resume}"})
    assert [line.partition(";")[0] for line in told] == [
        "env.A: {inputs.no} stands for nothing",
        "env.B: {ouptut} stands for nothing",
        "env.C: {resume} stands for nothing",
    ]


def test_all_of_it_is_told_at_once_and_for_a_pool_under_its_name() -> None:
    on = {"b": OnPool(params={"processes": -1, "metrics": ["("]}), "c": OnPool(needs=Needs())}
    told = lines({"command": "", "result": ["/x"]}, on=on)
    assert [line.partition(":")[0] for line in told] == [
        "command",
        "result.0",
        "on.b.metrics.0",
        "on.b.processes",
    ]


def test_checkpoints_of_so_many_ranks_are_refused_where_a_fallback_has_others() -> None:
    params = {**WRITES, "checkpoints": spread_layout({"layout": "verl"}), "processes": 8}
    told = (
        "pipeline.stages.s.checkpoints.reshard: false, but there are 8 ranks on 'a' and 4 on 'b';"
        " ask for as many on each pool, or say true where the script can take it"
    )

    def lines_on(*pools: str, **changes: Any) -> list[str]:
        found = problems_of(pipeline(command(params, **changes)), fleet(), bindings(*pools))
        return [str(problem) for problem in found]

    fewer = {"on": {"b": OnPool(params={"processes": 4})}}
    assert lines_on("a", "b", **fewer) == [told]
    assert lines_on("a", "c", **fewer) == []
    elastic = Needs(workers=2, min_workers=1)
    assert "16 ranks on 'a' and 8 on 'a'" in lines_on("a", needs=elastic)[0]
    params["checkpoints"] = spread_layout({"layout": "megatron"})
    assert lines_on("a", "b", **fewer) == []


@pytest.mark.parametrize(
    "line",
    [
        "train {checkpoints} > log 2>&1",
        "train {checkpoints} &>> log",
        "A=1 train {checkpoints} --note 'a; b' --and \"c | $(date; id)\" --cost \\$3\\;\n",
        "train {checkpoints} $(date | tail -1) ${X:-a|b} `id; date`",
        "train {checkpoints} \\\n  --steps 3",
        "train {checkpoints} 2>&1 {resume} | tee log",
    ],
)
def test_words_are_added_to_the_one_command_of_a_line_or_where_it_says(line: str) -> None:
    assert lines({**RESUMES, "command": line}) == []


@pytest.mark.parametrize(
    "line",
    [
        "cd x && train {checkpoints}",
        "train {checkpoints}; echo done",
        "train {checkpoints}\necho done",
        "train {checkpoints} &",
        "(train {checkpoints})",
        "train {checkpoints} > >(tee log)",
        "train {checkpoints} # all of it",
        "[[ -e {checkpoints} ]]",
        "if train {checkpoints}; then echo done; fi",
        "train {checkpoints} ${resume} | tee log",
        "train {checkpoints} <<END\nsteps: 3\nEND",
    ],
)
def test_words_are_not_added_to_the_last_command_of_several(line: str) -> None:
    (told,) = lines({**RESUMES, "command": line})
    assert told.startswith("resume: would be added to the last command of a line")
