"""The words of a command: what stands for something in them, and which of them can never work."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices, nearest
from orchestrator.core.spec.stages import Json, Stage

# What stands for something in the words of a command, beside `inputs.NAME` and `resume`.
NAMES = (
    "attempt",
    "checkpoint",
    "checkpoints",
    "output",
    "pool.backend",
    "pool.device",
    "pool.name",
    "run",
    "seed",
    "stage",
)
_RESUME, _RESUMED = "resume", "{resume}"
_NAMED = re.compile(r"(?<!\$)\{([a-z]+(?:\.[A-Za-z0-9_-]+)?)\}")
_LIKE = 0.82  # how alike a name in braces is to one of ours, to be a slip of the pen
_WITH_NAMES = ("command", _RESUME, "tensorboard")
_SHELLS = frozenset({"bash", "dash", "ksh", "sh", "zsh"})
# What in a line for the shell is no end of a command: quotes, what is put in, redirections.
_INNER = re.compile(
    r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`|\$\{[^{}]*\}"
    r"|\$\((?:[^()]|\([^()]*\))*\)|&>>?|[<>]+[&|]?",
    re.DOTALL,
)
_ENDS_A_COMMAND = re.compile(r"[|&;()\n]|(?:^|\s)#|^(?:\[\[|case|for|if|select|until|while|\{)\s")


def problems_of_words(
    path: str, params: Mapping[str, Json], keys: Collection[str], names: Sequence[str]
) -> Iterator[Problem]:
    """Yield which of the words under `keys`, in which `names` stand for something, never work."""
    for key in (key for key in _WITH_NAMES if key in keys):
        value, words = params[key], _words(params, key)
        if key == "command" and not words.strip() and isinstance(value, str | list):
            yield Problem(f"{path}.{key}", "is empty", "write what shall run")
        more = (_RESUME,) if key == "command" else ()
        yield from _name_problems(f"{path}.{key}", words, (*names, *more))
    metrics = params["metrics"] if "metrics" in keys else None
    if isinstance(metrics, Mapping):
        yield from _name_problems(f"{path}.metrics.file", _words(metrics, "file"), names)


def problems_of_variables(stage: Stage, names: Sequence[str]) -> Iterator[Problem]:
    """Yield which names in the environment variables of a command stand for nothing."""
    for variable, text in stage.env.items():
        yield from _name_problems(f"pipeline.stages.{stage.name}.env.{variable}", text, names)


def problems_of_use(
    path: str, params: Mapping[str, Json], env: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield what is said on one side alone: of the command, or of its stage."""
    words = " ".join((_words(params, "command", _RESUME), *env.values()))
    if params.get("checkpoints") is None:
        if params.get(_RESUME):
            what = "is never added: there is nothing to go on from without `checkpoints`"
            yield Problem(f"{path}.resume", what, "say what a checkpoint is, or leave it out")
        elif "{checkpoint}" in words:
            what = "{checkpoint} is always empty without `checkpoints`"
            yield Problem(f"{path}.command", what, "say what a checkpoint is, or leave it out")
    elif "{checkpoints}" not in words:
        what = "no word of the command names {checkpoints}, the folder where they are looked for"
        yield Problem(f"{path}.checkpoints", what, "have the command write them there")
    yield from _resume_problems(path, params)


def _words(params: Mapping[str, Json], *keys: str) -> str:
    """Return all words that stand under `keys`, in one text."""
    values = (params.get(key) for key in keys)
    listed = [value if isinstance(value, list) else [value] for value in values]
    return " ".join(word for words in listed for word in words if isinstance(word, str))


def _name_problems(path: str, text: str, names: Sequence[str]) -> Iterator[Problem]:
    for name in dict.fromkeys(_NAMED.findall(text)):
        if name in names:
            continue
        head = name.partition(".")[0]
        ours = head in {"inputs", "pool"} or ("." in name and head in {"input", "pools"})
        if ours or name == _RESUME or nearest(name, names, _LIKE):
            hint = choices(name, names, "names")
            yield Problem(path, f"{{{name}}} stands for nothing", hint)


def _resume_problems(path: str, params: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield where the words of `resume` would reach another program than the one that trains."""
    command = params.get("command")
    if not params.get(_RESUME):
        if _RESUME in _NAMED.findall(_words(params, "command")):
            what = "{resume} is always empty without `resume`"
            yield Problem(f"{path}.command", what, "say what is added, or leave it out")
    elif isinstance(command, str):
        if _RESUME not in _NAMED.findall(command) and not takes_more_words(command):
            what = "would be added to the last command of a line that is more than one"
            yield Problem(f"{path}.resume", what, "write {resume} in the line where they belong")
    elif isinstance(command, list):
        yield from _resumed_word_problems(path, [str(word) for word in command])


def _resumed_word_problems(path: str, words: Sequence[str]) -> Iterator[Problem]:
    within = next((word for word in words if _RESUMED in word and word != _RESUMED), None)
    shell = bool(words) and PurePosixPath(words[0]).name in _SHELLS
    if within is not None:
        what = f"{shown(within)} holds {_RESUMED}, which is a word of its own"
        yield Problem(f"{path}.command", what, "write the command as one line for the shell")
    elif shell and any(re.fullmatch(r"-\w*c", word) for word in words):
        what = "is read by no command in the line of a shell that is one of the words"
        yield Problem(f"{path}.resume", what, "write `command` as that line, with {resume} in it")


def takes_more_words(line: str) -> bool:
    """Whether words at the end of a line for the shell are those of its one command."""
    return _ENDS_A_COMMAND.search(_INNER.sub("_", line.strip())) is None
