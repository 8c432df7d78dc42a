"""What stands for what in a command, and the environment of its processes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.commands import shell_line
from orchestrator.job import JobContext

_RESUME = "resume"
_HEADS = frozenset({"inputs", "pool"})
_SHELL = ("bash", "-euo", "pipefail", "-c")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What the names in a command stand for, for one worker of the attempt."""

    ctx: JobContext
    work: Path
    named: Mapping[str, str]

    @classmethod
    def of(cls, ctx: JobContext, work: Path) -> Expansion:
        """Return what the names stand for in a worker, which works in the folder `work`."""
        named = {
            "output": str(ctx.output),
            "checkpoints": str(work / "checkpoints"),
            "checkpoint": "",
            "pool.name": ctx.hardware.pool,
            "pool.device": ctx.hardware.device.partition(":")[0],
            "pool.backend": ctx.hardware.backend,
            "run": ctx.run,
            "stage": ctx.stage,
            "attempt": str(ctx.attempt),
            "seed": str(ctx.seed),
            **{f"inputs.{name}": str(path) for name, path in ctx.inputs.items()},
        }
        return cls(ctx, work, named)

    @property
    def checkpoints(self) -> Path:
        """The folder that `{checkpoints}` stands for."""
        return Path(self.named["checkpoints"])

    def resumed_from(self, checkpoint: Path | None) -> Expansion:
        """Return it for a command that goes on from `checkpoint`."""
        return replace(self, named={**self.named, "checkpoint": str(checkpoint or "")})

    def argv(self, command: str | Sequence[str], resume: Sequence[str]) -> list[str]:
        """Return what to run; `resume` is added where there is a checkpoint.

        It stands in the place of `{resume}`, which is a word of its own in a command of words, or
        at the end where nothing names that. In a line for the shell each value stands as what it
        is, whatever characters it has.

        Raises:
            ValueError: It names what there is not.
        """
        more = tuple(resume) if self.named["checkpoint"] else ()
        named = f"{{{_RESUME}}}"
        if isinstance(command, str):
            placed = _RESUME in shell_line.NAME.findall(command)
            line = command if placed else " ".join((command.rstrip(), *more))
            words = {_RESUME: self._line(" ".join(more), {})}
            return [*_SHELL, self._line(line, words)]
        spread = [more if word == named else (word,) for word in command]
        last = () if named in command else more
        return [self._filled(word) for part in (*spread, last) for word in part]

    def _line(self, line: str, words: Mapping[str, str]) -> str:
        return shell_line.filled(line, lambda name: self._value(name, line), words)

    def _filled(self, word: str) -> str:
        def value(match: re.Match[str]) -> str:
            text = self._value(match[1], word)
            return match[0] if text is None else text

        return shell_line.NAME.sub(value, word)

    def _value(self, name: str, place: str) -> str | None:
        """Return what a name in `place` stands for, `None` where it is none of ours."""
        if name not in self.named and name.partition(".")[0] in _HEADS:
            known = ", ".join(f"{{{known}}}" for known in sorted(self.named))
            raise ValueError(f"{{{name}}} in {place!r} stands for nothing; there are: {known}")
        return self.named.get(name)

    def path(self, name: str, workdir: Path) -> Path:
        """Return the path of that name, where it is no absolute one in `workdir`.

        Raises:
            ValueError: It names what there is not.
        """
        return workdir / self._filled(name)

    def environments(self, processes: int, more: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the environment of each process, with `more` and its place as torchrun says it.

        A worker is to them what a node is to torchrun. Names in what the config says of variables
        stand for what they do in the command.

        Raises:
            ValueError: One names what there is not.
        """
        ctx, python = self.ctx, str(Path(sys.executable).parent)
        named = {name: self._filled(text) for name, text in ctx.env.items()}
        named = {name: text for name, text in named.items() if text != ctx.env[name]}
        environment = {**os.environ, **named}  # noqa: TID251 - what it starts reads it
        return [
            {
                **environment,
                "PATH": os.pathsep.join((python, environment.get("PATH", os.defpath))),
                "PYTHONUNBUFFERED": "1",
                **more,
                "RANK": str(ctx.rank * processes + number),
                "WORLD_SIZE": str(ctx.world_size * processes),
                "LOCAL_RANK": str(number),
                "LOCAL_WORLD_SIZE": str(processes),
                "NODE_RANK": str(ctx.rank),
                "GROUP_RANK": str(ctx.rank),
            }
            for number in range(processes)
        ]

    def workdir(self, name: str) -> Path:
        """Return the working directory: a copy, so that nobody writes into what others read.

        Raises:
            ValueError: There is no such folder.
        """
        target = self.work / "workdir"
        source = next((folder for folder in self.ctx.code if folder.is_dir()), None)
        if name:
            folders = (folder / name for folder in (*self.ctx.code, Path.cwd()))
            source = next((path for path in folders if path.is_dir()), None)
            if source is None:
                raise ValueError(f"workdir {name!r} is no folder of jobs.code, nor of this host")
        if source is None:
            target.mkdir(parents=True)
        else:
            shutil.copytree(source, target, symlinks=True)
        return target
