"""Which exceptions are Python's own words about code, known by their types or by the names alone.

What such an exception says is about the code that raised it, whatever it quotes: its words are
never read as the error of a chip, a link or a driver.
"""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType

PLAIN = frozenset(
    {
        "ValueError",
        "TypeError",
        "KeyError",
        "IndexError",
        "LookupError",
        "AttributeError",
        "AssertionError",
        "NameError",
        "ArithmeticError",
        "StopIteration",
        "StopAsyncIteration",
        "SyntaxError",
        "RecursionError",
        "BufferError",
        "ImportError",
        "FileNotFoundError",
        "FileExistsError",
        "PermissionError",
        "IsADirectoryError",
        "NotADirectoryError",
        "Warning",
    }
)
# Exceptions of well-known libraries, where nothing but their names is there.
_BASES: Mapping[str, str] = MappingProxyType(
    {
        "JSONDecodeError": "ValueError",
        "ValidationError": "ValueError",
        "ParserError": "ValueError",
        "LinAlgError": "ValueError",
        "_LinAlgError": "ValueError",
        "AxisError": "ValueError",
        "ConfigAttributeError": "AttributeError",
        "ConfigKeyError": "KeyError",
        "_ArrayMemoryError": "MemoryError",
        "OutOfMemoryError": "RuntimeError",
        "AcceleratorError": "RuntimeError",
        "DistError": "RuntimeError",
        "DistBackendError": "RuntimeError",
        "DistNetworkError": "RuntimeError",
        "DistStoreError": "RuntimeError",
    }
)
# What these packages raise is not of the job's own making, so far as it is not plain.
_PACKAGES = re.compile(
    r"""(?x)(?: torch\w* | ray | transformers | accelerate | datasets | peft | trl | diffusers
      | lightning | deepspeed | megatron | vllm\w* | sglang | triton | jax\w* | flax | tensorflow
      | (?:aio)?botocore | boto3 | s3fs | gcsfs | adlfs | fsspec | s3transfer | google | azure
      | oss2 | minio | huggingface_hub | safetensors\w* | tokenizers | requests | urllib3 | httpx
      | httpcore | aiohttp | grpc | websockets | openai | mlflow | wandb | sqlalchemy | psycopg2?
      | redis | pymongo | pyarrow | pandas | numpy | PIL | cupy | numba | pynvml | mpi4py )\."""
)
_OF_A_TASK = re.compile(r"(?:\w+\.)*RayTaskError\(([\w.]+)\)")


def is_plain(types: Iterable[str]) -> bool:
    """Whether one of `types`, an exception's own and its bases, is plain Python's."""
    return any(name.rpartition(".")[2] in PLAIN for name in types)


def bases(name: str) -> tuple[str, ...]:
    """Return `name` and the bases of the exception that is called so, as far as they are known."""
    task = _OF_A_TASK.fullmatch(name)
    if task:  # Ray makes it a subclass of what was raised in the task
        return (name, *bases(task[1]))
    short = name.rpartition(".")[2]
    builtin = getattr(builtins, short, None)
    if isinstance(builtin, type) and issubclass(builtin, BaseException):
        return (name, *(base.__name__ for base in builtin.__mro__[1:-1]))
    known = _BASES.get(short)
    return (name, *bases(known)) if known else (name, "Exception", "BaseException")


def of_a_package(name: str) -> bool:
    """Whether the exception of this name is, by its module, Python's or a well-known package's."""
    top, dot, _ = name.partition(".")
    return bool(dot) and (top in sys.stdlib_module_names or _PACKAGES.match(name) is not None)
