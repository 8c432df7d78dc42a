"""The command line: verbs, flags, help. Imports nothing heavy, so that help is instant."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import orchestrator

EPILOG = """\
Overrides are Hydra's: `pipeline=r2`, `fleet=local`, `roles.train=ascend`, `seed=7`.

exit codes: 0 succeeded, 1 error, 2 bad config or usage, 100 run failed, 101 run not finished,
102 not found, 103 run cancelled
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; flags and overrides may stand in any order.

    Leaves by SystemExit with code 2 when it can't be parsed, or 0 after printing help.
    """
    parser = build()
    args, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(args, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse takes positionals in one piece; these come after a flag
        args.overrides = [*args.overrides, *rest]
    return args


def build() -> argparse.ArgumentParser:
    """Return the parser; `args.verb` names the command."""
    parser = argparse.ArgumentParser(
        prog="orchestrator",
        description=orchestrator.__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=orchestrator.__version__)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    _plan(verbs)
    _launch(verbs)
    _runs(verbs)
    _fleet(verbs)
    _qualify(verbs)
    _endpoints(verbs)
    _models(verbs)
    _services(verbs)
    _hidden(verbs)
    return parser


def _plan(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = verbs.add_parser("plan", help="show what a launch would do, and what it would cost")
    _config(plan)
    _unqualified(plan)
    _json(plan)


def _launch(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    launch = verbs.add_parser("launch", help="run a pipeline")
    _config(launch)
    _unqualified(launch)
    launch.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: one run for each combination"
    )
    launch.add_argument(
        "-d", "--detach", action="store_true", help="return at once; the run goes on as a Ray job"
    )
    launch.add_argument(
        "--no-cache", action="store_true", help="run every stage, reuse no earlier result"
    )


def _runs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = verbs.add_parser("status", help="list the runs, or the stages of one")
    status.add_argument("run", nargs="?", metavar="RUN", help="id of a run, or its beginning")
    status.add_argument("-n", "--limit", type=int, default=20, help="newest runs to list")
    _json(status)
    logs = verbs.add_parser("logs", help="print what the stages of a run wrote")
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("stage", nargs="?", metavar="STAGE")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    resume = verbs.add_parser("resume", help="go on with a run whose controller is gone")
    resume.add_argument("run", metavar="RUN")
    resume.add_argument("-d", "--detach", action="store_true", help="go on as a Ray job")
    resume.add_argument("--no-cache", action="store_true", help="reuse no result of other runs")
    resume.add_argument(
        "--take-over", action="store_true", help="even if its controller lives; that one stops"
    )
    cancel = verbs.add_parser("cancel", help="end a run")
    cancel.add_argument("run", metavar="RUN")
    approve = verbs.add_parser("approve", help="let a stage pass that waits for an approval")
    approve.add_argument("run", metavar="RUN")
    approve.add_argument("stage", metavar="STAGE")


def _fleet(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pools = verbs.add_parser(
        "pools",
        help="list the pools of the fleet; `pools drain NAME` empties one, `undrain` ends that",
    )
    _config(pools)
    _json(pools)
    pools.add_argument("--reason", default="", help="with drain: why, for those who wait")


def _qualify(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    qualify = verbs.add_parser("qualify", help="find out what a pool can do: `qualify POOL`")
    _config(qualify)
    qualify.add_argument("--role", choices=("train", "serve"), help="default: both")
    qualify.add_argument("--quick", action="store_true", help="in seconds, without a soak")
    qualify.add_argument("--soak", type=_seconds, metavar="SECONDS", help="how long to work on")
    qualify.add_argument(
        "--model-of", metavar="PIPELINE", help="check the model that this pipeline trains"
    )


def _endpoints(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ask = verbs.add_parser("ask", help="ask a served model")
    ask.add_argument("question", help="`-` reads it from standard input")
    ask.add_argument("-e", "--endpoint", help="default: the one deployed last")
    ask.add_argument("--max-tokens", type=int, default=128)
    ask.add_argument("--temperature", type=float, default=0.0)
    endpoints = verbs.add_parser("endpoints", help="list what is served, and where")
    endpoints.add_argument("-a", "--all", action="store_true", help="retired revisions too")
    _json(endpoints)
    switch = verbs.add_parser("switch", help="move a live endpoint to another pool")
    switch.add_argument("name", metavar="ENDPOINT", help="an endpoint, or the id of a run")
    switch.add_argument("overrides", nargs="*", metavar="pool=POOL", help="or KEY=VALUE")
    _dry(switch)
    _unqualified(switch)
    switch.add_argument(
        "--no-qualify", action="store_true", help="use a pool that has no verdict yet as it is"
    )
    deploy = verbs.add_parser("deploy", help="add a revision to an endpoint, without traffic")
    deploy.add_argument("name", metavar="RUN", help="with --address: ENDPOINT")
    deploy.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    deploy.add_argument("--address", help="OpenAI base URL of a server that is there already")
    deploy.add_argument("--model", help="with --address: its name for the model")
    deploy.add_argument(
        "--key-variable", default="", help="with --address: the gateway's variable with its key"
    )
    _dry(deploy)
    _unqualified(deploy)
    traffic = verbs.add_parser("traffic", help="share an endpoint's traffic between revisions")
    traffic.add_argument("endpoint", metavar="ENDPOINT")
    traffic.add_argument("shares", nargs="+", metavar="r1=90", help="percent, 100 together")
    rollback = verbs.add_parser("rollback", help="go back to the revision before")
    rollback.add_argument("endpoint", metavar="ENDPOINT")
    _dry(rollback)
    undeploy = verbs.add_parser("undeploy", help="take an endpoint away, or one revision")
    undeploy.add_argument("endpoint", metavar="ENDPOINT")
    undeploy.add_argument("revision", nargs="?", metavar="rN")
    keys = verbs.add_parser("keys", help="list the API keys; `keys add NAME`, `keys revoke NAME`")
    keys.add_argument("action", nargs="?", choices=("list", "add", "revoke"), default="list")
    keys.add_argument("name", nargs="?", metavar="NAME")
    keys.add_argument("--model", action="append", default=[], help="an endpoint that it opens")
    keys.add_argument("--requests", type=int, help="requests a minute, at most")
    keys.add_argument("--tokens", type=int, help="tokens a minute, at most")
    keys.add_argument("--days", type=float, help="until it expires")
    _json(keys)


def _models(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = verbs.add_parser("models", help="list the versions of the models that were served")
    models.add_argument("model", nargs="?", metavar="MODEL", help="of this endpoint alone")
    _json(models)
    promote = verbs.add_parser("promote", help="make a version the champion of its model")
    promote.add_argument("model", metavar="MODEL")
    promote.add_argument("version", nargs="?", type=int, help="default: the candidate")
    promote.add_argument(
        "--force", default="", metavar="REASON", help="though its parity is not passed"
    )


def _services(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ui = verbs.add_parser("ui", help="open the runs in the MLflow UI")
    ui.add_argument("--no-browser", action="store_true", help="print the addresses only")
    up = verbs.add_parser("up", help="start the cluster and MLflow on this machine")
    _config(up)
    verbs.add_parser("down", help="stop all that runs on this machine, endpoints too")
    doctor = verbs.add_parser("doctor", help="check this machine and what runs on it")
    _json(doctor)
    completion = verbs.add_parser("completion", help="print the completion script of a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _hidden(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that other commands call; a parser without help is not listed."""
    drive = verbs.add_parser("_drive")
    drive.add_argument("run")
    drive.add_argument("--no-cache", action="store_true")
    drive.add_argument("--take-over", action="store_true")
    verbs.add_parser("_reap")
    verbs.add_parser("_gateway").add_argument("port", type=int)
    keep = verbs.add_parser("_keep")
    keep.add_argument("address")
    keep.add_argument("gateway")
    complete = verbs.add_parser("_complete")
    complete.add_argument("words", nargs=argparse.REMAINDER)


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    hydra = parser.add_argument_group("Hydra")
    hydra.add_argument(
        "--config-dir", "-cd", type=Path, help="your own configs; they win over ours"
    )
    hydra.add_argument("--config-name", "-cn", default="config", help="primary config")
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


def _dry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the steps, do nothing")


def _unqualified(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unqualified", action="store_true", help="use pools that have not earned their role too"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def verbs() -> list[str]:
    """Return the commands that help lists."""
    made = build()
    found = next(a for a in made._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001 - argparse has no public way
    return [verb for verb in found.choices if not verb.startswith("_")]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return seconds
