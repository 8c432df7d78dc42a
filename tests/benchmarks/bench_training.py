"""Tokens a second of the training job in an attempt, against the same loop bare.

Same model, data, batches, optimizer and number of threads. Both are timed from the end of the
first window of steps to the end of the last, so that no set-up counts, in turns. The quickest
round of each counts: a difference of some percent drowns in what other work costs the slow ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from orchestrator import wiring
from orchestrator.core.artifact import ArtifactRef
from orchestrator.messages import Message, Points, Succeeded
from orchestrator.worker.attempt import stream
from tests.benchmarks.table import Row, compare
from tests.build import attempt_request

ROUNDS = 10
WINDOW, WINDOWS = 5, 8
STEPS = WINDOW * WINDOWS
BATCH, RATE, WARMUP, FLOOR, BETA2, DECAY = 64, 6e-3, 50, 0.05, 0.98, 0.1
PARAMS = {"steps": STEPS, "batch_size": BATCH, "log_every": WINDOW, "learning_rate": RATE}
PARAMS |= {"warmup": WARMUP, "learning_rate_floor": FLOOR, "beta2": BETA2, "weight_decay": DECAY}
PARAMS |= {"validate_every": 0, "checkpoint_every": 0}


def rows() -> list[Row]:
    """Prepare data once, then train in turns."""
    with TemporaryDirectory(prefix="bench-") as folder:
        storage = Path(folder).as_uri()
        data = _outcome(storage, "data", "jobs.data.arithmetic.prepare", {"draws": 500}).artifact
        if data is None:
            raise RuntimeError("the data job made no data")
        rounds = [(_ours(storage, n, data), _bare(storage, data)) for n in range(ROUNDS)]
    ours, theirs = (max(column) for column in zip(*rounds, strict=True))
    name = "training tokens of a worker, against the same loop bare"
    return [compare(name, ours, theirs, unit="tokens/s", goal="ratio >= 0.98")]


def _ours(storage: str, number: int, data: ArtifactRef) -> float:
    """Return tokens per second, from the times at which the job told its points."""
    told = [
        message
        for message in _messages(
            storage, f"train-{number}", "jobs.pretraining.pretrain", PARAMS, data=data
        )
        if isinstance(message, Points) and "train/tokens_per_second" in message.values
    ]
    spans = [after.at - before.at for before, after in pairwise(told)]
    return _tokens(storage, data) / sum(spans)


def _outcome(storage: str, run: str, job: str, params: dict[str, Any]) -> Succeeded:
    *_, last = _messages(storage, run, job, params)
    if not isinstance(last, Succeeded):
        raise TypeError(f"{job} did not succeed: {last!r}")
    return last


def _messages(
    storage: str, run: str, job: str, params: dict[str, Any], **inputs: ArtifactRef
) -> Iterator[Message]:
    from orchestrator.adapters.torch_process_group import open_process_group

    request = attempt_request(
        run=run, job=job, params=params, packages=("jobs",), inputs=inputs, storage=storage
    )
    clock, store = wiring.clock(), wiring.artifact_store(storage)
    for batch in stream(
        request,
        rank=0,
        rendezvous=None,
        store=store,
        clock=clock,
        process_group=open_process_group,
    ):
        yield from batch


# --- bare -------------------------------------------------------------------------------------


def _bare(storage: str, data: ArtifactRef) -> float:
    """Return tokens per second of a loop as one writes it for oneself, in a thread as ours is."""
    spent: list[float] = []
    folder = wiring.artifact_store(storage).fetch(data)
    thread = threading.Thread(target=lambda: spent.append(_loop(folder)))
    thread.start()
    thread.join()
    return _tokens(storage, data) / spent[0]


def _loop(folder: Path) -> float:
    """Train, and return the seconds from the end of the first window to the end of the last."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, matrices, vectors = _net(folder)
    groups = [
        {"params": matrices, "weight_decay": DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, BETA2), fused=True)
    rows, order = _data(folder)
    began = 0.0
    for step in range(STEPS):
        if step == WINDOW:
            began = perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (step + 1) / WARMUP  # all steps are within the warm-up
        batch = order[step * BATCH : (step + 1) * BATCH]
        tokens, labels = rows.tokens[batch].to(torch.int64), rows.labels[batch].to(torch.int64)
        logits = net(input_ids=tokens[:, :-1], use_cache=False).logits
        learnt = labels[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), learnt, ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - began


def _net(folder: Path) -> tuple[Any, list[Any], list[Any]]:
    """Return the model, its matrices and its vectors."""
    from jobs.data.dataset import TOKENIZER_NAME
    from jobs.data.tokenizer import load_tokenizer
    from jobs.training.model import build

    net = build("llama", {}, load_tokenizer(folder / TOKENIZER_NAME)).train()
    parameters = list(net.parameters())
    return net, [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]


def _data(folder: Path) -> tuple[Any, Any]:
    """Return the rows, and the numbers of those that all steps take: our job's own."""
    from jobs.data.dataset import read_rows
    from jobs.data.splits import TRAIN
    from jobs.training.order import Order

    rows = read_rows(folder, TRAIN)
    return rows, Order(len(rows), seed=0).take(0, STEPS * BATCH)


def _tokens(storage: str, data: ArtifactRef) -> float:
    """Return how many tokens all windows but the first have."""
    from jobs.data.dataset import read_facts

    folder = wiring.artifact_store(storage).fetch(data)
    rows, order = _data(folder)
    return float((rows.tokens[order[WINDOW * BATCH :]] != read_facts(folder).pad).sum())
