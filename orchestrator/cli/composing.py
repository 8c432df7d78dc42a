"""What `plan`, `launch`, `pools` and `up` share: from the command line to settings."""

from __future__ import annotations

import argparse
import shlex

from orchestrator import wiring
from orchestrator.cli import flags
from orchestrator.core.settings import Settings


def settings(args: argparse.Namespace) -> Settings:
    """Compose the config that the command line names.

    Raises:
        ConfigError: With all problems.
    """
    return wiring.settings(args.overrides, args.config_dir, args.config_name)


def chosen(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the flags by which the command line chose its config, good in any folder."""
    folder = ("--config-dir", str(args.config_dir.absolute())) if args.config_dir else ()
    name = ("--config-name", args.config_name) if args.config_name != flags.CONFIG_NAME else ()
    return *folder, *name


def again(args: argparse.Namespace, *words: str) -> str:
    """Return what of this command line another command needs too, and `words`, for a shell."""
    folder = ("--config-dir", str(args.config_dir)) if args.config_dir else ()
    return shlex.join([*folder, *chosen(args)[len(folder) :], *args.overrides, *words])


def shown(args: argparse.Namespace) -> bool:
    """Print the config, or how it was composed, if that is asked for; return whether it was."""
    if not (args.cfg or args.info):
        return False
    from orchestrator.adapters import hydra_config

    where = {"config_dir": args.config_dir, "config_name": args.config_name}
    if args.cfg:
        options = {"resolve": args.resolve, "package": args.package}
        print(hydra_config.show(args.cfg, args.overrides, **where, **options))
    else:
        print(hydra_config.info(args.info, args.overrides, **where))
    return True
