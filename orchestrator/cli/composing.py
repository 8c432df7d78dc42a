"""What `plan`, `launch`, `pools` and `up` share: from the command line to a config."""

from __future__ import annotations

import argparse
import shlex

from orchestrator.core.settings import Settings
from orchestrator.display import tables
from orchestrator.service.planning import ConfigSource


def source(args: argparse.Namespace) -> ConfigSource:
    """Return the config that the command line names."""
    return ConfigSource(tuple(args.overrides), args.config_dir, args.config_name)


def settings(args: argparse.Namespace) -> Settings:
    """Return the settings of the config that the command line names; say what has a new name."""
    composed = source(args).settings()
    for line in composed.renamed:
        tables.console(stderr=True).print(line, style="yellow", markup=False)
    return composed


def again(args: argparse.Namespace, *words: str) -> str:
    """Return what of this command line another command needs too, and `words`, for a shell."""
    folder = ("--config-dir", str(args.config_dir)) if args.config_dir else ()
    flags = source(args).flags[len(folder) :]
    return shlex.join([*folder, *flags, *args.overrides, *words])


def shown(args: argparse.Namespace) -> bool:
    """Print the config, or how it was composed, if that is asked for; return whether it was."""
    if args.cfg:
        print(source(args).shown(args.cfg, resolve=args.resolve, package=args.package))
    elif args.info:
        print(source(args).composition(args.info))
    return bool(args.cfg or args.info)
