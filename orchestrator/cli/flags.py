"""Flags that several verbs have."""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIG_NAME = "config"  # where the command line names none


def config(parser: argparse.ArgumentParser) -> None:
    """Let a verb compose a config."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    hydra = parser.add_argument_group("Hydra")
    hydra.add_argument(
        "--config-dir", "-cd", type=Path, help="your own configs; they win over ours"
    )
    hydra.add_argument("--config-name", "-cn", default=CONFIG_NAME, help="primary config")
    hydra.add_argument("--cfg", choices=("job", "hydra", "all"), help="print the config, and stop")
    hydra.add_argument("--resolve", action="store_true", help="with --cfg: fill interpolations in")
    hydra.add_argument("--package", "-p", help="with --cfg: a part of it")
    hydra.add_argument(
        "--info",
        nargs="?",
        const="all",
        choices=("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
        help="print how the config was composed, and stop",
    )


def dry(parser: argparse.ArgumentParser) -> None:
    """Let a verb print its steps alone."""
    parser.add_argument("--dry-run", action="store_true", help="print the steps, do nothing")


def unqualified(parser: argparse.ArgumentParser) -> None:
    """Let a verb use pools without a verdict."""
    parser.add_argument(
        "--unqualified", action="store_true", help="use pools that have not earned their role too"
    )


def as_json(parser: argparse.ArgumentParser) -> None:
    """Let a verb print JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")
