"""vLLM on a CPU as a foreign reader: what it makes of a folder, beside what transformers does.

It runs by the Python of another environment: `make vllm` makes one, and
ORCHESTRATOR_VLLM_PYTHON names any other.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import torch
import yaml
from torch import nn
from transformers import AutoConfig

from jobs.engines import weights
from jobs.formats.records import KEY
from tests.jobs.formats import vllm_scores

ROOT = Path(__file__).parents[3]
NAMED = os.environ.get("ORCHESTRATOR_VLLM_PYTHON", "")  # noqa: TID251 - where vLLM is
PYTHON = Path(NAMED or ROOT / ".venv-vllm/bin/python")
# What the parity gate allows BF16 beyond the noise of its arithmetic.
PARITY = yaml.safe_load((ROOT / "conf/job/parity.yaml").read_text())["params"]
ALLOWED: float = PARITY["allowances"]["bf16"]["kl_mean"]
FACTOR: float = PARITY["factor"]
TOKENS = [[(i * 7 + j * 13) % 90 + 3 for j in range(40)] for i in range(2)]
# Where both compute in BF16: of two texts one token for whom rounding chooses another expert is
# more than all others (Qwen3-Next: 0.6 nats, of 0.001 elsewhere); of these both have several.
MORE_TOKENS: list[list[int]] = torch.randint(
    3, 93, (32, 40), generator=torch.Generator().manual_seed(5)
).tolist()
# vLLM's own settings: no network, in this one process, its threads bound to no core.
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_MLA_DISABLE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
ENDED = "Timeout ("  # as faulthandler has it


class Vllm:
    """vLLM in a process of its own; what ends the process costs only its own answer.

    `home` is a folder for vLLM's files, `seconds` the time that it has for a folder of a model.
    """

    def __init__(self, home: Path, seconds: float, python: Path = PYTHON) -> None:
        self._home, self._seconds, self._python = home, seconds, python
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def answer(
        self, folder: Path, dtype: str = "float32", tokens: list[list[int]] = TOKENS
    ) -> dict[str, Any]:
        """Return vLLM's `model` and its `scores` of texts of `tokens`, or why it `refused`.

        `dtype` is the type that it computes in.
        """
        config = AutoConfig.from_pretrained(folder)
        order = {
            "folder": str(folder),
            "dtype": dtype,
            "tokens": tokens,
            "vocabulary": config.get_text_config().vocab_size,
            "seconds": self._seconds,
        }
        process = self._process = self._process or self._started()
        asked, told = _pipe(process.stdin), _pipe(process.stdout)
        with suppress(BrokenPipeError):  # it has ended, and says why
            asked.write(f"{json.dumps(order)}\n")
            asked.flush()
        for line in told:
            if line.startswith(vllm_scores.MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(vllm_scores.MARK))
                if "refused" in answer:  # it may have left what the next would fail by
                    self._stop()
                return answer
        return {"refused": self._end(process)}

    def _started(self) -> subprocess.Popen[str]:
        with self._errors.open("w") as errors:
            return subprocess.Popen(
                [str(self._python), vllm_scores.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**SETTINGS, "HOME": str(self._home), "PATH": os.defpath},
                text=True,
            )

    @property
    def _errors(self) -> Path:
        return self._home / "stderr.txt"

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._end(self._process)

    def _end(self, process: subprocess.Popen[str]) -> str:
        """Return why a process has ended."""
        self._process = None
        with suppress(BrokenPipeError), process:
            process.wait()
        written = self._errors.read_text(errors="replace")
        if ENDED in written:
            return f"no answer within {self._seconds:.0f} s"
        return (
            f"the process ended with {process.returncode}: {' '.join(written.splitlines()[-1:])}"
        )


@torch.no_grad()
def divergence(
    folder: Path,
    answer: Mapping[str, Any],
    tokens: list[list[int]] = TOKENS,
    *,
    by_token: bool,
) -> float:
    """The mean KL divergence of what vLLM says from transformers, of the weights in `folder`.

    `by_token` quantizes what goes into the layers that are quantized, each token by itself, as
    vLLM does with a folder in INT8.
    """
    assert "refused" not in answer, answer
    ours = _scores(folder, tokens, by_token=by_token)
    return _mean_divergence(ours, torch.tensor(answer["scores"]))


@torch.no_grad()
def noise(folder: Path, tokens: list[list[int]]) -> float:
    """The mean KL divergence of transformers in BF16 from itself in float32."""
    return _mean_divergence(_scores(folder, tokens), _scores(folder, tokens, torch.bfloat16))


def _scores(
    folder: Path,
    tokens: list[list[int]],
    dtype: torch.dtype = torch.float32,
    *,
    by_token: bool = False,
) -> torch.Tensor:
    """Return transformers' log-probabilities of `tokens`, texts x places x vocabulary."""
    model = weights.load(folder, dtype, "cpu")
    if by_token:
        ignored = json.loads((folder / "config.json").read_text())[KEY]["ignore"]
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name not in ignored:
                module.register_forward_pre_hook(_in_eight_bits)
    logits = model(input_ids=torch.tensor(tokens), use_cache=False).logits
    scores: torch.Tensor = logits.float().log_softmax(-1)[:, :-1]
    return scores


def _mean_divergence(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert theirs.shape == ours.shape
    return float((ours.exp() * (ours - theirs)).sum(-1).mean())


def _in_eight_bits(_: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    (values,) = inputs
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return ((values / scale).round() * scale,)


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
