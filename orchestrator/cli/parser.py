"""The command line: verbs, flags, help. Imports nothing heavy, so that help is instant."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import cast

import orchestrator
from orchestrator.cli import arguments, flags, upkeep
from orchestrator.cli.arguments import shown
from orchestrator.core.text import storable

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
    if rest and (
        not hasattr(args, "overrides") or any(word.startswith("-") for word in rest if word != "-")
    ):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for name, value in vars(args).items():  # of paths and overrides others see to that
        if isinstance(value, str) and not storable(value):
            parser.error(f"argument {name}: {shown(value)} is no text in UTF-8")
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
    _failures(verbs)
    _endpoints(verbs)
    _models(verbs)
    _services(verbs)
    upkeep.add(verbs)
    _hidden(verbs)
    return parser


def _plan(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = verbs.add_parser("plan", help="show what a launch would do, and what it would cost")
    flags.config(plan)
    flags.unqualified(plan)
    flags.as_json(plan)


def _launch(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    launch = verbs.add_parser("launch", help="run a pipeline")
    flags.config(launch)
    flags.unqualified(launch)
    launch.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: one run for each combination"
    )
    launch.add_argument(
        "-d", "--detach", action="store_true", help="return at once; the run goes on as a Ray job"
    )
    launch.add_argument(
        "--no-cache", action="store_true", help="run every stage, reuse no earlier result"
    )
    flags.dry(launch)
    launch.add_argument(
        "--continue", dest="continues", metavar="RUN", help="go on from a run's checkpoints"
    )


def _runs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = verbs.add_parser("status", help="list the runs, or the stages of one")
    status.add_argument("run", nargs="?", metavar="RUN", help="id of a run, or its beginning")
    status.add_argument(
        "-n",
        "--limit",
        type=arguments.whole("runs", arguments.ROWS),
        default=20,
        help="newest runs to list",
    )
    flags.as_json(status)
    _logs(verbs)
    _profile(verbs)
    resume = verbs.add_parser("resume", help="go on with a run that did not succeed")
    resume.add_argument("run", metavar="RUN")
    resume.add_argument(
        "overrides", nargs="*", metavar="LIMIT=VALUE", help="other limits: cost_limit=200"
    )
    resume.add_argument(
        "--from", dest="since", metavar="STAGE", help="begin with this stage, though it succeeded"
    )
    resume.add_argument(
        "--attempts",
        type=arguments.whole("attempts", arguments.ROWS),
        metavar="N",
        help="failures in a row that a stage may have",
    )
    _going_on(resume)
    resume.add_argument(
        "--take-over", action="store_true", help="even if its controller lives; that one stops"
    )
    rerun = verbs.add_parser("rerun", help="run a stage of a run again, and what comes after it")
    rerun.add_argument("run", metavar="RUN")
    rerun.add_argument("stage", metavar="STAGE")
    _going_on(rerun)
    rerun.set_defaults(take_over=False)
    cancel = verbs.add_parser("cancel", help="end a run")
    cancel.add_argument("run", metavar="RUN")
    flags.dry(cancel)
    approve = verbs.add_parser("approve", help="let a stage pass that waits for an approval")
    approve.add_argument("run", metavar="RUN")
    approve.add_argument("stage", metavar="STAGE")
    flags.dry(approve)


def _logs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    logs = verbs.add_parser("logs", help="print what the stages of a run wrote")
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("stage", nargs="?", metavar="STAGE")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    attempts, ranks = (
        arguments.whole("attempts", arguments.ROWS),
        arguments.whole("ranks", arguments.ROWS, 0),
    )
    logs.add_argument("--attempt", type=attempts, metavar="N", help="of the N-th attempts alone")
    logs.add_argument("--rank", type=ranks, metavar="N", help="of worker N alone")
    lines = arguments.whole("lines", arguments.ROWS, 0)
    logs.add_argument("--tail", type=lines, metavar="N", help="begin with the last N lines")
    logs.add_argument(
        "--since", type=arguments.duration, metavar="10m", help="of the last 10 minutes alone"
    )


def _profile(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    profile = verbs.add_parser("profile", help="show what a stage does while it runs")
    profile.add_argument("run", metavar="RUN")
    profile.add_argument("stage", metavar="STAGE")
    ranks = arguments.whole("ranks", arguments.ROWS, 0)
    profile.add_argument(
        "--rank", type=ranks, default=0, metavar="N", help="worker N; 0 by default"
    )
    seconds = arguments.number("seconds", arguments.RECORDED, zero=False)
    profile.add_argument(
        "--seconds", type=seconds, metavar="S", help="record for S seconds where time goes"
    )
    profile.add_argument(
        "--output", metavar="FILE", help="of a recording: .svg, .json (speedscope.app), .txt"
    )


def _going_on(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--detach", action="store_true", help="go on as a Ray job")
    parser.add_argument("--no-cache", action="store_true", help="reuse no result of other runs")
    flags.dry(parser)


def _fleet(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pools = verbs.add_parser(
        "pools",
        help="list the pools of the fleet; `pools drain NAME` empties one, `undrain` ends that",
    )
    flags.config(pools)
    flags.as_json(pools)
    pools.add_argument("--reason", type=arguments.word, help="with drain: why, for those who wait")
    flags.dry(pools)


def _qualify(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    qualify = verbs.add_parser("qualify", help="find out what a pool can do: `qualify POOL`")
    flags.config(qualify)
    qualify.add_argument("--role", choices=("train", "serve"), help="default: both")
    qualify.add_argument("--quick", action="store_true", help="in seconds, without a soak")
    qualify.add_argument(
        "--soak",
        type=arguments.number("seconds", arguments.SECONDS),
        metavar="SECONDS",
        help="how long to work on",
    )
    qualify.add_argument(
        "--model-of", metavar="PIPELINE", help="check the model that this pipeline trains"
    )
    flags.dry(qualify)


def _failures(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    failures = verbs.add_parser(
        "failures",
        help="say what a log excerpt is taken for, and what follows: `failures explain FILE`",
    )
    failures.add_argument("action", choices=("explain",))
    flags.config(failures)
    flags.as_json(failures)


def _outside_server(deploy: argparse.ArgumentParser) -> None:
    deploy.add_argument("--address", help="OpenAI base URL of a server that is there already")
    deploy.add_argument(
        "--model", type=arguments.word, help="with --address: its name for the model"
    )
    secret = deploy.add_mutually_exclusive_group()
    secret.add_argument(
        "--key-file", default="", help="with --address: the file with its key, on each gateway"
    )
    secret.add_argument(
        "--key-variable", default="", help="with --address: the gateway's variable with its key"
    )
    deploy.add_argument(
        "--key-header", default="", help="with --address: the header for it, such as api-key"
    )
    deploy.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="with --address: sent with each request; no place for a secret",
    )
    deploy.add_argument(
        "--ca-file", default="", help="with --address: what its certificate is checked by (PEM)"
    )
    deploy.add_argument(
        "--proxy",
        action="store_true",
        help="with --address: ask it through the proxy of the gateway's environment",
    )


def _endpoints(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ask = verbs.add_parser("ask", help="ask a served model")
    ask.add_argument("question", help="`-` reads it from standard input")
    ask.add_argument("-e", "--endpoint", help="default: the one deployed last")
    ask.add_argument("--max-tokens", type=arguments.whole("tokens", arguments.TOKENS), default=128)
    ask.add_argument(
        "--temperature", type=arguments.number("degrees", arguments.HOTTEST), default=0.0
    )
    endpoints = verbs.add_parser("endpoints", help="list what is served, and where")
    endpoints.add_argument("-a", "--all", action="store_true", help="retired revisions too")
    flags.as_json(endpoints)
    switch = verbs.add_parser("switch", help="move a live endpoint to another pool")
    switch.add_argument("name", metavar="ENDPOINT|RUN", help="an endpoint, or the id of a run")
    switch.add_argument("overrides", nargs="*", metavar="pool=POOL", help="or KEY=VALUE")
    flags.dry(switch)
    flags.unqualified(switch)
    switch.add_argument(
        "--no-qualify", action="store_true", help="use a pool that has no verdict yet as it is"
    )
    deploy = verbs.add_parser("deploy", help="add a revision to an endpoint, without traffic")
    deploy.add_argument("name", metavar="RUN", help="or ENDPOINT: what that serves")
    deploy.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    _outside_server(deploy)
    flags.dry(deploy)
    flags.unqualified(deploy)
    traffic = verbs.add_parser("traffic", help="share an endpoint's traffic between revisions")
    traffic.add_argument("endpoint", metavar="ENDPOINT")
    traffic.add_argument("shares", nargs="+", metavar="r1=90", help="percent, 100 together")
    flags.dry(traffic)
    rollback = verbs.add_parser("rollback", help="go back to the revision before")
    rollback.add_argument("endpoint", metavar="ENDPOINT")
    flags.dry(rollback)
    update = verbs.add_parser("update", help="have an endpoint serve another version, live")
    update.add_argument("endpoint", metavar="ENDPOINT")
    update.add_argument("model", metavar="MODEL", help="as `orchestrator models` lists it")
    update.add_argument(
        "version", type=arguments.whole("versions", arguments.ROWS), metavar="VERSION"
    )
    flags.dry(update)
    undeploy = verbs.add_parser("undeploy", help="take an endpoint away, or one revision")
    undeploy.add_argument("endpoint", metavar="ENDPOINT")
    undeploy.add_argument("revision", nargs="?", metavar="rN")
    flags.dry(undeploy)
    _keys(verbs)
    _cost(verbs)


def _cost(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cost = verbs.add_parser("cost", help="what endpoints were used for, and what they held")
    cost.add_argument("--by", default="endpoint,key,pool,day", help="also: revision")
    days = arguments.number("days", arguments.DAYS, zero=False)
    cost.add_argument("--days", type=days, default=30.0, help="back from today; 30 by default")
    flags.as_json(cost)


def _keys(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keys = verbs.add_parser("keys", help="list the API keys; add, change, rotate or revoke one")
    actions = ("list", "show", "add", "set", "rotate", "revoke", "require")
    keys.add_argument("action", nargs="?", choices=actions, default="list")
    keys.add_argument("name", nargs="?", type=arguments.word, metavar="KEY|on|off")
    keys.add_argument(
        "changes", nargs="*", metavar="LIMIT=VALUE", help="requests=60, budget=20, tokens=none ..."
    )
    keys.add_argument("--model", action="append", default=[], help="an endpoint that it opens")
    most = arguments.MINUTES_WORTH
    requests = arguments.whole("requests", most)
    keys.add_argument("--requests", type=requests, help="requests a minute, at most")
    tokens = arguments.whole("tokens", most)
    keys.add_argument("--tokens", type=tokens, help="tokens a minute, at most")
    days = arguments.number("days", arguments.DAYS, zero=False)
    keys.add_argument("--days", type=days, help="until it expires")
    keys.add_argument(
        "--overlap", default="1h", metavar="TIME", help="that the old secret opens; 1h by default"
    )
    flags.dry(keys)
    flags.as_json(keys)


def _models(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = verbs.add_parser("models", help="list the versions of the models that were served")
    models.add_argument("model", nargs="?", metavar="MODEL", help="of this endpoint alone")
    flags.as_json(models)
    promote = verbs.add_parser("promote", help="make a version the champion of its model")
    promote.add_argument("model", metavar="MODEL")
    promote.add_argument(
        "version",
        nargs="?",
        type=arguments.whole("versions", arguments.ROWS),
        help="default: the candidate",
    )
    promote.add_argument(
        "--force",
        type=arguments.word,
        default="",
        metavar="REASON",
        help="though its parity is not passed",
    )
    flags.dry(promote)


def _services(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ui = verbs.add_parser("ui", help="open the runs in the MLflow UI")
    ui.add_argument("--no-browser", action="store_true", help="print the addresses only")
    up = verbs.add_parser("up", help="start the cluster and MLflow on this machine")
    up.add_argument("--block", action="store_true", help="until interrupted, with the gateway")
    flags.config(up)
    flags.dry(up)
    down = verbs.add_parser("down", help="stop all that runs on this machine, endpoints too")
    down.add_argument("-y", "--yes", action="store_true", help="runs in progress too; don't ask")
    flags.dry(down)
    doctor = verbs.add_parser(
        "doctor", help="check this machine, what runs on it, and a cluster that is named"
    )
    flags.config(doctor)
    flags.as_json(doctor)
    completion = verbs.add_parser("completion", help="print the completion script of a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _hidden(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that other commands call; a parser without help is not listed."""
    drive = verbs.add_parser("_drive")
    drive.add_argument("run")
    drive.add_argument("--no-cache", action="store_true")
    drive.add_argument("--take-over", action="store_true")
    drive.add_argument("--by", default="")
    verbs.add_parser("_reap")
    gateway = verbs.add_parser("_gateway")
    for name in ("settings", "url", "cluster"):
        gateway.add_argument(name)
    number = arguments.whole("processes", arguments.ROWS, least=0)
    gateway.add_argument("number", nargs="?", type=number, default=0)
    reconcile = verbs.add_parser("_reconcile")
    reconcile.add_argument("address")
    reconcile.add_argument("settings", nargs="?", default="{}")
    complete = verbs.add_parser("_complete")
    complete.add_argument("words", nargs=argparse.REMAINDER)


def verbs() -> list[str]:
    """Return the commands that help lists."""
    return [verb for verb in _verbs() if not verb.startswith("_")]


def actions(verb: str) -> list[argparse.Action]:
    """Return what a command takes; nothing where there is no such command."""
    parser = _verbs().get(verb)
    return [] if parser is None else list(parser._actions)  # noqa: SLF001 - argparse has no public way


def _verbs() -> Mapping[str, argparse.ArgumentParser]:
    parser = build()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001 - argparse has no public way
    return cast("Mapping[str, argparse.ArgumentParser]", subparsers.choices)
