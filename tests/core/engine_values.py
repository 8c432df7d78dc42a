"""An engine server that is none, and the pools that its tests put it on."""

from __future__ import annotations

from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.engines import EngineSpec, Maker, Parallel
from orchestrator.core.spec.hardware import Pool
from tests.build import accelerator

SPEC = EngineSpec(
    name="fast",
    command=("{python}", "-m", "fast", "--port={port}", "{model}", "--as", "{name}"),
    environment={"OFFLINE": "1", "CHIPS": "{devices}"},
    options={"log": "no", "eager": True},
    parallel=Parallel(tensor="tp", pipeline="pp", data="dp"),
    concurrency="max-seqs",
    at_once=64,
    makers={
        "nvidia": Maker(),
        "cpu": Maker(formats=("bf16",), environment={"THREADS": "2"}, options={"log": "yes"}),
    },
)
CHIPS = Pool(
    name="h800",
    accelerator=accelerator(name="h800", vendor="nvidia", device="cuda", formats=("fp8",)),
)
HOST = Pool(name="host", accelerator=accelerator(name="h800"), emulation=Emulation(device="cpu"))
