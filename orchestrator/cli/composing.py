"""What `plan`, `launch`, `pools` and `up` share: from the command line to settings."""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.core.settings import Settings


def settings(args: argparse.Namespace) -> Settings:
    """Compose the config that the command line names.

    Raises:
        ConfigError: With all problems.
    """
    return wiring.settings(args.overrides, args.config_dir, args.config_name)


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
