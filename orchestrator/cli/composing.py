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

    if args.cfg:
        text = hydra_config.show(
            args.cfg,
            args.overrides,
            config_dir=args.config_dir,
            resolve=args.resolve,
            package=args.package,
        )
    else:
        text = hydra_config.info(args.info, args.overrides, config_dir=args.config_dir)
    print(text)
    return True
