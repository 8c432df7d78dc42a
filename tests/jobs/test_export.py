from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2Config

from jobs.data.dataset import TOKENIZER_NAME
from jobs.engines import weights
from jobs.engines.embedded import EmbeddedEngine
from jobs.export import export
from jobs.formats.schemes import SCHEMES
from jobs.parity.model_config import fields_in_folder, other_fields
from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.engine import Sampling
from tests.jobs.engines.tiny_llama import HARDWARE
from tests.jobs.local_context import LocalContext
from tests.jobs.test_pretraining import run_gang

CHAT = [{"role": "user", "content": "What is 12 + 34?"}]


def exported(folder: Path, model: Path, **params: str) -> LocalContext:
    ctx = LocalContext(folder=folder, inputs={"model": model})
    export(ctx, **params)
    return ctx


def logits(folder: Path) -> torch.Tensor:
    """What transformers makes of a folder, in the precision that it is stored in."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt")
    with torch.no_grad():
        out: torch.Tensor = model(**asked).logits
    return out.float()


def test_transformers_opens_it_unchanged_with_the_same_logits(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    trained = logits(undisturbed.output)

    assert logits(exported(tmp_path / "a", undisturbed.output, format="fp32").output).equal(
        trained
    )
    rounded = logits(exported(tmp_path / "b", undisturbed.output).output)
    assert torch.allclose(rounded, trained, atol=0.15)


def test_it_says_the_hash_of_the_weights(tmp_path: Path, undisturbed: LocalContext) -> None:
    made = exported(tmp_path, undisturbed.output)
    written = (made.output / "model.safetensors").read_bytes()
    assert made.hashes == {"model.safetensors": hashlib.sha256(written).hexdigest()}


def test_the_folder_has_all_that_an_engine_needs(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    folder = exported(tmp_path, undisturbed.output).output
    said = json.loads((folder / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trained_with = AutoTokenizer.from_pretrained(sums / TOKENIZER_NAME)

    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert said["eos_token_id"] == tokenizer.eos_token_id
    assert said["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.chat_template == trained_with.chat_template
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


@pytest.mark.parametrize("form", SCHEMES)
def test_what_is_exported_in_any_format_is_served(
    tmp_path: Path, undisturbed: LocalContext, form: str
) -> None:
    ctx = exported(tmp_path, undisturbed.output, format=form)
    engine = EmbeddedEngine(ctx.output, ctx.hardware, threads=1)

    async def answer() -> str:
        asked = engine.generate(engine.encode_chat(CHAT), Sampling(max_tokens=4, temperature=0))
        return "".join([piece.text async for piece in asked])

    assert isinstance(asyncio.run(answer()), str)
    engine.close()
    assert "parameters in" in ctx.lines[-1]
    assert " 0 of them quantized" not in ctx.lines[-1]


def test_a_model_without_linear_layers_is_not_exported_as_if_it_were_quantised(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    model = AutoModelForCausalLM.from_config(
        GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9, bos_token_id=0, eos_token_id=0)
    )
    model.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match=r"gpt2 has no layer that readers take in int8"):
        exported(tmp_path, tmp_path / "gpt2", format="int8")


@pytest.mark.parametrize("form", ["fp32", "int8"])
@pytest.mark.parametrize("own", [True, False])
def test_a_head_beside_the_embeddings_is_served_as_what_it_is(
    tmp_path: Path, undisturbed: LocalContext, *, form: str, own: bool
) -> None:
    """Engine servers take the embeddings for the head where the config says that they are one."""
    source = shutil.copytree(undisturbed.output, tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embeddings.flip(0) if own else embeddings.clone()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    said = json.loads((source / "config.json").read_text())
    assert said["tie_word_embeddings"]
    folder = exported(tmp_path / "out", source, format=form).output
    written = json.loads((folder / "config.json").read_text())
    assert written["tie_word_embeddings"] == (not own)
    model = AutoModelForCausalLM.from_pretrained(source)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight) == (not own)
    if form == "fp32":
        assert logits(folder).equal(logits(source))
    assert other_fields(fields_in_folder(source), fields_in_folder(folder)) == []


def test_an_unknown_format_is_refused_with_those_that_exist(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    with pytest.raises(ValueError, match="format='fp4' is none of bf16, fp32"):
        exported(tmp_path, undisturbed.output, format="fp4")


def test_all_that_ends_an_answer_and_how_tokens_are_drawn_stays(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    source = shutil.copytree(undisturbed.output, tmp_path / "source")
    own = AutoTokenizer.from_pretrained(source).eos_token_id
    given = {"eos_token_id": [5, own, 9], "temperature": 0.6, "top_p": 0.95, "do_sample": True}
    (source / "generation_config.json").write_text(json.dumps(given))
    folder = exported(tmp_path / "out", source).output
    assert json.loads((folder / "generation_config.json").read_text()) == given
    read = GenerationConfig.from_pretrained(folder)
    assert read.eos_token_id == [5, own, 9]
    assert (read.do_sample, read.temperature, read.top_p) == (True, 0.6, 0.95)
    engine = EmbeddedEngine(folder, HARDWARE, threads=1)
    assert engine._batch.weights.eos == {5, own, 9}
    assert engine.defaults == {"temperature": 0.6, "top_p": 0.95}
    engine.close()


def test_a_gang_on_two_nodes_writes_the_model_that_one_worker_writes(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    one = exported(tmp_path / "one", undisturbed.output, format="int8").output
    spec = {"store": str(tmp_path / "store"), "inputs": {"model": str(undisturbed.output)}}
    spec |= {"job": "jobs.export.export", "world_size": 3, "params": {"format": "int8"}}
    homes = [tmp_path / "a", tmp_path / "b", tmp_path / "a"]
    for home in homes:
        home.mkdir(exist_ok=True)
    told = run_gang(
        [
            {**spec, "rank": rank, "cwd": str(home), "folder": f"rank-{rank}"}
            for rank, home in enumerate(homes)
        ]
    )
    several = homes[0] / "rank-0" / "output"
    files = sorted(path.name for path in several.glob("*.safetensors"))
    assert files == [f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    assert [one.name for one in (homes[1] / "rank-1/output").iterdir()] == [files[1]]
    assert not list((homes[2] / "rank-2/output").iterdir())
    stored = load_file(one / "model.safetensors").values()
    assert told["export/bytes"] == sum(tensor.nbytes for tensor in stored)
    assert_same(one, several)
    assert_same(one, kept_in_an_object_store(several, tmp_path / "scratch"))


def kept_in_an_object_store(folder: Path, scratch: Path) -> Path:
    """Return what a store of objects gives back of a folder that was put there."""
    store = FsspecArtifactStore(f"memory://{uuid.uuid4().hex}", scratch)
    room = store.scratch("model")
    shutil.copytree(folder, room, dirs_exist_ok=True)
    return store.fetch(store.commit(room, "run/export/1", {}))


def assert_same(one: Path, other: Path) -> None:
    before, after = (weights.load(made, torch.float32, "cpu") for made in (one, other))
    for (name, weight), same in zip(
        before.state_dict().items(), after.state_dict().values(), strict=True
    ):
        assert torch.equal(weight, same), name
