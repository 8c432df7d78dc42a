"""What `.gitignore` leaves out, by git's rules; git itself need not be there.

`.orchestratorignore` beside it is written alike and has the last word: `!*.so` lets compiled
modules travel that git ignores, `notes/` leaves out what git keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NAMES = (".gitignore", ".orchestratorignore")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a `.gitignore`, or a file like it, that lies in `folder`."""

    folder: Path
    pattern: re.Pattern[str]
    folders_only: bool
    keeps: bool

    def fits(self, path: Path, *, is_folder: bool) -> bool:
        """Whether the line speaks of `path`."""
        if (self.folders_only and not is_folder) or not path.is_relative_to(self.folder):
            return False
        return bool(self.pattern.fullmatch(path.relative_to(self.folder).as_posix()))


def above(folder: Path) -> tuple[Rule, ...]:
    """Return the rules of the folders above `folder`, up to the root of its work tree, if any."""
    top = next(
        (ancestor for ancestor in (folder, *folder.parents) if (ancestor / ".git").exists()),
        folder,
    )
    between = [ancestor for ancestor in reversed(folder.parents) if ancestor.is_relative_to(top)]
    return tuple(rule for ancestor in between for rule in read(ancestor))


def read(folder: Path) -> Iterator[Rule]:
    """Yield the rules that lie in `folder`, in their order; none where there are none."""
    for name in NAMES:
        try:
            lines = (folder / name).read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        yield from (rule for line in lines if (rule := _rule(folder, line)) is not None)


def ignored(path: Path, rules: Iterable[Rule], *, is_folder: bool) -> bool:
    """Whether the last rule that speaks of `path` leaves it out."""
    left_out = False
    for rule in rules:
        if rule.fits(path, is_folder=is_folder):
            left_out = not rule.keeps
    return left_out


def _rule(folder: Path, line: str) -> Rule | None:
    text = line if line.endswith("\\ ") else line.rstrip()
    if not text or text.startswith("#"):
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders_only, text = text.endswith("/"), text.rstrip("/")
    anchored = "/" in text
    parts = PurePosixPath(text.removeprefix("/")).parts
    if not parts:
        return None
    pattern = "/".join(map(_part, parts)) if anchored else f"(?:.*/)?{_part(parts[0])}"
    pattern = pattern.replace("**/", "(?:.*/)?").replace("/**", "/.*").replace("**", ".*")
    try:
        return Rule(folder, re.compile(pattern, re.DOTALL), folders_only, keeps)
    except re.error:
        return None


def _part(part: str) -> str:
    """Return the expression of one part of a path; `**` stays for the caller."""
    if part == "**":
        return part
    expression, rest = "", part
    while rest:
        bracket = re.match(r"\[(!?)([^\]]+)\]", rest)
        if bracket:
            expression += f"[{'^' if bracket[1] else ''}{bracket[2]}]"
            rest = rest[bracket.end() :]
            continue
        letter, rest = rest[0], rest[1:]
        if letter == "\\" and rest:
            letter, rest = rest[0], rest[1:]
            expression += re.escape(letter)
        else:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter))
    return expression
