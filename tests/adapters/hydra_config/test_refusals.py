"""Bad input: each problem one line, with its path and the way out, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from orchestrator.core.errors import Problem

Refused = Callable[..., Sequence[Problem]]

STAGE, EMULATION = "pipeline.stages.learn", "fleet.pools.nvidia.emulation"
ONE_LINE_EACH = [
    ("seeed=3", "seeed: unknown key 'seeed'; did you mean 'seed'? keys: "),
    ("+x.y=1", "x: unknown key 'x'; keys: attempt_limit, "),
    ("pools.train=ascend", "pools.train: unknown key 'pools'; a role is bound to a pool by "),
    ("role.train=ascend", "role.train: unknown key 'role'; a role is bound to a pool by roles.tr"),
    ("roles.trian=ascend", "roles.trian: unknown key 'trian'; did you mean 'train'? keys: prep"),
    ("roles=ascend", "roles: 'ascend' is not a mapping"),
    ("seed=abc", "seed: 'abc' is not a whole number"),
    ("seed=true", "seed: True is not a whole number"),
    ("seed=1.5", "seed: 1.5 is not a whole number"),
    (
        "fleet.pools.nvidia.accelerator.diagnostic_failed='('",
        "fleet.pools.nvidia.accelerator.diagnostic_failed: '(' is no regular expression",
    ),
    ("seed=-1", "seed: -1 is out of bounds; 0 to 4294967295"),
    ("seed=1e400", "seed: inf is not a whole number"),
    ("cost_limit=inf", "cost_limit: inf is out of bounds; at least 0"),
    ("a" * 5000 + "=1", "aaaaa"),
    ("fleet=" + "a" * 5000, "fleet: 'aaaaa"),
    ("fallbacks.train=nvidia", "fallbacks.train: 'nvidia' is not a list"),
    ("tags.a=${oc.env:NOT_SET_AT_ALL}", "tags.a: KeyError raised while resolving interpolation"),
    (
        "tags.a='\udcff'",
        "tags.a: has half of a pair of surrogates, which is no text in UTF-8; write",
    ),
    ("seed=null", "seed: None is not a whole number"),
    ("seed=???", "seed: is missing; set seed=VALUE"),
    ("seed=${nope}", "seed: Interpolation key 'nope' not found; mend the ${...}"),
    ("cost_limit=.nan", "cost_limit: '.nan' is not a number"),
    ("gateway.port=70000", "gateway.port: 70000 is out of bounds; 1 to 65535"),
    ("cluster.serve_port=70000", "gateway.port: 70000 is out of bounds; 1 to 65535"),
    (
        "gateway.url=models.example.com",
        (
            "gateway.url: 'models.example.com' is not the address of a server; "
            "write https://HOST[:PORT], or leave it empty"
        ),
    ),
    (
        "gateway.tls.key=k.pem",
        "gateway.tls.certificate: is missing beside gateway.tls.key; name a file in PEM",
    ),
    (
        "gateway.cors.origins=[example.com]",
        "gateway.cors.origins.0: 'example.com' is no origin; write https://HOST[:PORT] or *",
    ),
    (
        "gateway.limits.body_byte=1",
        "gateway.limits.body_byte: unknown key 'body_byte'; did you mean 'body_bytes'?",
    ),
    ("gateway.limits.depth=0", "gateway.limits.depth: 0 is out of bounds; at least 0.001"),
    ("gateway.limits.depth=1.5", "gateway.limits.depth: 1.5 is not a whole number"),
    ("cluster.kind=slurm", "cluster.kind: 'slurm' is none of its values; values: local, ray"),
    (f"{STAGE}.role=trian", f"{STAGE}.role: 'trian' is none of its values; did you mean 'train'"),
    (f"{STAGE}.nedes.workers=2", f"{STAGE}.nedes: unknown key 'nedes'; did you mean 'needs'? "),
    (f"{STAGE}.needs=3", f"{STAGE}.needs: 3 is not a mapping"),
    (f"{STAGE}.name=other", f"{STAGE}.name: unknown key 'name'; keys: after, "),
    (f"{STAGE}.limits.attempts=0", f"{STAGE}.limits.attempts: 0 is out of bounds; 1 to 1000"),
    (f"{STAGE}.on_failure.hangs=stop", f"{STAGE}.on_failure.hangs: unknown key 'hangs'; did you"),
    (f"{STAGE}.watch.hang=never", f"{STAGE}.watch.hang: 'never' is neither a number nor 'auto'"),
    (f"{STAGE}.watch.hang=0", f"{STAGE}.watch.hang: 0 is out of bounds; at least 1"),
    (f"{STAGE}.on_failure.hang=halt", f"{STAGE}.on_failure.hang: 'halt' is none of its values; "),
    ("pipeline.stages.lern.cache=false", "pipeline.stages.lern: no such stage 'lern'; did you m"),
    ("+pipeline.stages.B={job: a.b, role: train}", "pipeline.stages.B: 'B' is no name; a name ma"),
    ("+pipeline.stages.b.job=a.b", "pipeline.stages.b.role: is missing; set "),
    ("+fleet.pools.x.nodes=2", "fleet.pools.x.accelerator: is missing; choose one: accelerator@"),
    ("fleet.pools.nvidea.nodes=2", "fleet.pools.nvidea: no such pool 'nvidea'; did you mean 'nv"),
    ("fleet=lcal", "fleet: 'lcal' is not one of the configs in fleet/; did you mean 'local'? con"),
    ("pipeline=", "pipeline: '' is not one of the configs in pipeline/; configs: "),
    ("storage=null", "storage: null chooses no config; remove it: ~storage"),
    ("~seeed", "seeed: Could not delete from config. 'seeed' does not exist."),
    ("accelerator@fleet.pools.q.accelerator=h20", "Could not override 'accelerator@fleet.pool"),
    ("roles.train=a,b", "roles.train: 'roles.train=a,b' has several values; sweep over them wit"),
    ("~fleet.pools.nvidia.accelerator.diagnostic.0", "fleet.pools.nvidia.accelerator.diagnostic."),
    ("fleet.pools.nvidia.accelerator.diagnostic.x=3", "fleet.pools.nvidia.accelerator.diagnostic"),
    ("tags.a=" + "[" * 300 + "]" * 300, "tags.a: it is nested too deep"),
    (f"+{STAGE}.params." + "a." * 100 + "b=1", f"{STAGE}.params.a.a.a"),
    (
        "seed=" + "9" * 5000,
        f"'seed={'9' * 75}'... (5005 characters) is no override: Exceeds the li",
    ),
    (f"{EMULATION}.faults=[{{what: [raise], at_step: 1}}]", f"{EMULATION}.faults.0.what: ['raise"),
    (
        f"{EMULATION}.faults=[{{what: {{a: 1}}, at_step: 1}}]",
        f"{EMULATION}.faults.0.what: {{'a': ",
    ),
    (f"{EMULATION}.device=[x]", f"{EMULATION}.device: ['x'] is not text"),
    (f"{EMULATION}.backend={{a: b}}", f"{EMULATION}.backend: {{'a': 'b'}} is not text"),
    (
        "pipeline.name=" + "a" * 64,
        f"pipeline.name: '{'a' * 64}' is no name; a name matches ^[a-z0",
    ),
    ("pipeline.name=a-", "pipeline.name: 'a-' is no name; a name matches "),
    (f"+pipeline.stages.{'s' * 64}={{job: a.b, role: train}}", f"pipeline.stages.{'s' * 64}: 'ss"),
    ("foo=[", "'foo=[' is no override: no viable alternative at input '['; write KEY=VALUE"),
    ("=3", "'=3' is no override: it has no key; write KEY=VALUE"),
    ("nonsense", "'nonsense' is no override: missing EQUAL at '<EOF>'; write KEY=VALUE, and qu"),
    ("hydra.searchpath=[file:///nowhere]", "provider=hydra.searchpath in command-line, path=/"),
]


@pytest.mark.parametrize(("override", "line"), ONE_LINE_EACH)
def test_a_bad_override_gives_one_line_with_the_way_out(
    refused: Refused, override: str, line: str
) -> None:
    problems = refused(override)
    assert [str(problem)[: len(line)] for problem in problems] == [line]


def test_all_problems_come_together(refused: Refused) -> None:
    problems = refused(
        "foo=[", "fleet=lcal", "experiment=quik", "seeed=3", "+x.y=1", "seed=abc", "cost_limit=-1",
        "tags.a=${tags.b}", f"{STAGE}.needs.workers=???", f"{STAGE}.limits.attempts=0",
    )  # fmt: skip
    assert sorted(problem.path for problem in problems) == sorted([
        "", "fleet", "experiment", "seeed", "x", "seed", "cost_limit", "tags.a",
        f"{STAGE}.needs.workers", f"{STAGE}.limits.attempts",
    ])  # fmt: skip


def test_what_an_unknown_file_would_have_brought_is_not_complained_of(refused: Refused) -> None:
    problems = refused("pipeline=nope", "pipeline.stages.theirs.needs.workers=2")
    assert [problem.path for problem in problems] == ["pipeline"]


def test_two_endpoints_of_one_name_are_refused(refused: Refused) -> None:
    endpoint = "{name: same, engine: jobs.engines.embedded.EmbeddedEngine}"
    stage = f"{{role: serve, inputs: {{model: learn}}, endpoint: {endpoint}}}"
    problems = refused(f"+pipeline.stages.s={stage}", f"+pipeline.stages.t={stage}")
    assert [str(problem) for problem in problems] == [
        "pipeline.stages.t.endpoint.name: 'same' is the endpoint of stage 's' too; rename one"
    ]
