"""What `plan` says of trainings of billions of parameters: what a rank holds, or can't."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.conftest import Command

SEVEN = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}
GEMMA_3_27B = {
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
}
OF_27 = {"architecture": "gemma3_text", "model": GEMMA_3_27B}
OF_671 = {
    "architecture": "deepseek_v3",
    "batch_size": 256,
    "rows": {"sequence": 4096},
    "activation_checkpointing": True,
}
FIT = {
    "dense_7": (64, {"model": SEVEN, "parallel": {"shard": 64}}),
    "dense_27": (64, {**OF_27, "parallel": {"replicate": 2, "shard": 32}}),
    "experts_671": (2048, {**OF_671, "parallel": {"shard": 256, "tensor": 8}}),
}
TOO_LARGE = {
    "dense_27": (4, {**OF_27, "parallel": {"shard": 4}}),
    "experts_671": (2048, {**OF_671, "parallel": {"shard": 2048}}),
    "whole_7": (64, {"model": SEVEN}),
}
REFUSALS = {
    "dense_27": "27.01B parameters, 4 workers: a rank needs * a chip has 80 GB; shard over more",
    "experts_671": "671.03B parameters, 2,048 workers: a rank needs * 80 GB; split its layers by",
    "whole_7": "6.74B parameters, 64 workers: a rank needs * holds all of the model: set parallel",
}


def plan(
    within: Command, folder: Path, stages: dict[str, tuple[int, dict[str, object]]]
) -> tuple[int, str, str]:
    """Plan a pipeline of trainings on H800; return how that ends, and what is printed."""
    written = {
        name: {
            "job": "jobs.pretraining.pretrain",
            "role": "train",
            "needs": {"workers": workers, "devices": 1},
            "params": params,
        }
        for name, (workers, params) in stages.items()
    }
    file = folder / "my/pipeline/sizes.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"name": "sizes", "stages": written}))
    done = within("plan", "--json", "--config-dir", "my", "pipeline=sizes", "fleet=r2")
    return done.returncode, done.stdout, done.stderr


def test_what_a_rank_will_hold_is_planned_from_seven_to_671_billion_parameters(
    within: Command, tmp_path: Path
) -> None:
    code, printed, errors = plan(within, tmp_path, FIT)
    assert code == 0, errors
    notes = {
        name: line.removeprefix(f"stage {name!r} on 'h800': ")
        for name in FIT
        for line in json.loads(printed)["notes"]
        if line.startswith(f"stage {name!r} on 'h800': ")
    }
    begins = {
        "dense_7": "6.74B parameters, 64 workers: 11.4 GB of 80 GB a rank (1.7 GB of weights",
        "dense_27": "27.01B parameters, 64 workers: ",
        "experts_671": "671.03B parameters, 2,048 workers: ",
    }
    saves = {"dense_7": "80.9 GB a save", "dense_27": "324.1 GB", "experts_671": "8,052.3 GB"}
    assert notes.keys() == FIT.keys()
    for name, line in notes.items():
        assert line.startswith(begins[name])
        assert " of 80 GB a rank (" in line
        assert saves[name] in line


def test_what_does_not_fit_is_refused_all_of_it_at_once(within: Command, tmp_path: Path) -> None:
    code, _, errors = plan(within, tmp_path, TOO_LARGE)
    assert code != 0
    for name, said in REFUSALS.items():
        path = f"pipeline.stages.{name}.params.parallel: on 'h800': "
        (line,) = (line for line in errors.splitlines() if path in line)
        begin, _, end = said.partition("*")
        assert path + begin in line
        assert end in line, line
