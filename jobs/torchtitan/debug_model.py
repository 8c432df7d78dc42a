"""torchtitan's own debug model, trained on chats of a data set of ours.

`--module jobs.torchtitan.debug_model --config debug_model --hf_assets_path ASSETS
--dataloader.load_dataset_kwargs ...` of torchtitan's command line take it from here.
"""

from __future__ import annotations

from typing import Any

from torchtitan.hf_datasets.text_datasets import ChatDataLoader
from torchtitan.models.llama3.config_registry import llama3_debugmodel


def debug_model() -> Any:  # noqa: ANN401 - torchtitan's own class
    """Return the config of its debug model, with a loader of chats in place of its text."""
    config = llama3_debugmodel()
    config.dataloader = ChatDataLoader.Config(
        dataset_path="json",
        load_dataset_kwargs={"split": "train", "data_files": "", "cache_dir": ".cache"},
        sample_processor=_chat,
    )
    config.validator.enable = False
    config.training.disable_cuda_graphs = True
    return config


def _chat(row: dict[str, str]) -> list[dict[str, str]]:
    """Return a task of a data set as the messages of a chat."""
    return [
        {"role": "user", "content": row["question"]},
        {"role": "assistant", "content": row["answer"]},
    ]
