"""Where in a line of a log its words begin, how loud it is, and which parts only quote.

Makers write the time, the level, the rank and the place in their source before what they say, each
in its own order. A line has a *head* where such a part ends: there its words may begin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

LONGEST = 2_000
MOST_HEADS = 16
# What stands before the words of a line. One part after the other is taken off.
_PART = re.compile(
    r"""
      \s+ | \x1b\[[0-9;]*m | \.\.\. | [-|]\ | [\w.]+\ -\ (?= (?:DEBUG|INFO|WARNING|ERROR)\b )
    | \[ (?: [^\[\]\n]{0,160} | [^\[\]\n]{0,80}\[[^\[\]\n]{0,80}\][^\[\]\n]{0,80} ) \] :?
    | \( [^()\n]{0,160} \) :?                                   # (TrainWorker pid=7, ip=10.0.0.2)
    | < [^<>\n]{1,60} > :?
    | \d{4}[-/]\d\d[-/]\d\d (?: [T\ _-]? \d\d:\d\d:\d\d (?: [.,:]\d+ )* )?
      (?: Z | [+-]\d\d:?\d\d )? :?
    | \d\d:\d\d:\d\d (?: [.,]\d+ )* :?
    | (?: Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec ) \ {1,2}\d{1,2}
        \ \d\d:\d\d:\d\d (?: \.\d+ )? (?: \ (?! \S+:\  ) \S+ )?
    | (?: [^|\n]{0,60} \d{1,3}%\|[^|\n]*\| )? \s* \d+/\d+\ \[[^\]\n]*\]   # progress
    | std(?:err|out)\ [FP]\ | \d{1,5}:\ | [a-z][a-z-]+\d[\w.-]*:\   # of containers, ranks, hosts
    | (?: kernel | python\d? | systemd | [a-z][\w.-]{1,40} (?= \[\d+\]: ) ) (?: \[\d+\] )? :
    | [IWEF]\d{4}\ \d\d:\d\d:\d\d\.\d+ \s+ (?: \d+ \s+ )?       # glog
    | [IWEF]\ (?= [\w./+-]{1,200}\.(?:cc|cu|cpp|h):\d+\] )      # TensorFlow's
    | (?: TRACE | DEBUG | INFO | NOTICE | WARN(?:ING)? | ERROR | CRITICAL | FATAL )
      (?: : [\w.-]+ : | \s* [:|-] | (?=\s) )                    # ERROR:root: or ERROR - or ERROR
    | [\w.$-]+:\d+:\d+ \ \[[\w-]+\]                             # host:pid:thread [device] of NCCL
    | [A-Z]\w*\(-?\d+,[\w./-]*\):                               # RUNTIME(51,python): of CANN
    | :\d:\S+\ *:\d+\ *:\ \d+d?\ us:                            # of ROCm
    | [\w:~<>]+\(\) [:.]*                                       # operator():
    | (?: [\w:~<>]{1,80}? : )? [\w./\\+-]{1,200}
      \. (?: cpp | cc | cxx | cuh? | c | hpp | h | inl | ts | go | rs | py )
      (?: :\d+ | \(\d+\) | ,?\ line\ \d+ )? (?: \ [\w:~]+\(\) )? \]? (?= [\s:,] | $ ) [:,]?
    | terminate\ called\ after\ throwing\ an\ instance\ of\ '[^'\n]*' :?
    | (?: libc\+\+abi:\ )? terminat\w+\ (?: due\ to | with )\ uncaught\ exception
      (?: \ of\ type\ [\w:]+ )? :?
    | what\(\):
    | (?i: rank | worker ) \ ?\d+ \b :?
    | (?: Uncaught\ )? [Ee]xception\ in\ thread\ \S+:?
    """,
    re.VERBOSE,
)
_TYPE = re.compile(
    r"((?:[A-Za-z_]\w*\.)*(?=[A-Z])\w*(?:Error|Exception|Exit|Interrupt|Timeout|Died|Lost|Failure))"
    r"(?: ?\([^()\n]{0,80}\))?:(?:\s+|$)"
)
_NAME = re.compile(r"([\w.<>]+):(?:\s+|$)")
_QUIET = re.compile(r"\b(?:TRACE|DEBUG|INFO|NOTICE)\b|(?:^|\[)I(?:\d{1,4}\b| )")
_WARNING = re.compile(r"\bWARN(?:ING)?\b|(?:^|\[)W(?:\d{1,4}\b| )")
_LOUD = re.compile(
    r"(?i:\b(?:ERROR|ERR|CRITICAL|FATAL|EMERG|ALERT)\b)|(?:^|\[)[EF](?:\d{1,4}\b| )"
    r"|\bterminat|^what"
)
_BEGINS_LOUD = re.compile(
    r"(?i)(?:[\w./-]+: )?(?:[\w().,'-]+ ){0,3}?(?:fatal|errors?|panic|fail(?:ed|ure)|faults?"
    r"|exception|abort(?:ed|ing)?|unable|could not|cannot)\b"
    r"|.{0,30}?(?:错误|失败|超时|异常|不足)"
)
# Programs that a job calls say their errors after their names.
_PROGRAM = re.compile(
    r"""(?x)(?:/\S*/)?(?: curl|wget|tar|gzip|unzip|zstd|git|git-lfs|rsync|cp|mv|dd|ssh|scp|docker
      |podman|apptainer|singularity|enroot|pyxis|aws|gsutil|gcloud|az|ossutil|rclone|s5cmd|hadoop
      |hdfs|ld|clang|gcc|g\+\+|cc1plus|collect2|nvcc|hipcc|cmake|ninja|make|pip3?|conda|apt|dpkg
      |mpirun|srun|sbatch|salloc|etcd\w*|redis\S*|kubelet|containerd|dockerd|libgomp|OMP
      |jemalloc|tcmalloc )\ ?:\ """
)
# Only native code says where in such a file it is.
_NATIVE = re.compile(r"[\w./\\+-]+\.(?:cpp|cc|cxx|cuh?|c|hpp|h|inl) *:\d+")
# Where another clause of a sentence begins: `step 7 failed: CUDA error: ...`.
_CLAUSE = re.compile(r"[:;.,!>(] +|\s-+ | due to | because of | with | by ")
_QUOTED = re.compile(r"(?<!\w)'[^'\n]*'(?!\w)|\"[^\"\n]*\"|`[^`\n]*`")
# What is quoted after these is the error itself, which is passed on.
_PASSES_ON = re.compile(
    r"(?i)\b(?:error|exception|reason|cause|caused by|because|failure was|got)\b\W{0,3}$"
)
# What follows these is somebody's text, which a job works on.
_DATA = re.compile(
    r"(?i)\b(?:mention(?:s|ed|ing)?|says|said|saying|contain(?:s|ed|ing)|quot(?:es?|ed|ing)|titled"
    r"|documents?|docs?|prompts?|texts?|captions?|transcripts?|paragraphs?|sentences?|questions?"
    r"|answers?|articles?|strings?|labelled|benchmark|reads)\b"
)
# What a job calls the text that it prints after it, as an example of what it works on.
_LABEL = re.compile(
    r"(?i)(?:\w+[ _-]){0,2}(?:samples?|examples?|completions?|generat(?:ions?|ed)|responses?"
    r"|outputs?|inputs?|targets?|labels?|references?|rows?|records?|chunks?|quer(?:y|ies)|decoded"
    r"|predict(?:ions?|ed)|hypothes[ie]s|doc|documents?|prompts?|texts?|captions?|questions?"
    r"|answers?|user|assistant|human|expected|actual|content|message|line)"
    r"(?:[ _#:-]*\d+|\[\d+\]|\(\d+\))?\s*(?:[:=>|]|->)\s"
)
# A line that tells what became of an error tells of one that was survived.
_SURVIVED = re.compile(
    r"(?i)\bretrying\b|\bwill retry\b|\bcaught (?!collective|fatal|signal|\w+ in )"
    r"|\bskipp(?:ing|ed)\b"
    r"|\bignor(?:ing|ed)\b|\blower(?:ing|ed)\b|\bfall(?:ing|s)? back\b|\bfell back\b"
    r"|\brecovered\b|\bcontinuing\b|\bhandled\b|\bif you see\b|\bmeans that\b"
)
_SKIPS = re.compile(r"^\^?(?:\(\?\w*:)?\.\{0,|\|\^?\.\{0,")
# Lines of a stack, and what is empty: they belong to the line before them.
_OF_A_STACK = re.compile(
    r"(?!\s+what\(\):)(?:\s|$|frame #\d+|Traceback \(|\*\*\*|#\d+ |@ +0x|\[rank\d+\]:\s{2,}"
    r"|Exception raised from .*\(most recent call first\)|C\+\+ CapturedTraceback)"
)
# What handlers of signals (abseil's, Python's) write of a process that is about to end.
_OF_A_HANDLER = re.compile(
    r"(?:\[[^\]]*\] )?(?:[\w.]+:\d+: )?(?:\*\*\* (?:SIG[A-Z]+|Aborted)\b|PC: @|\s*@ +0x)"
    r"|Fatal Python error: (?:Aborted|Segmentation fault|Bus error|Illegal instruction"
    r"|Floating[- ]point exception)\b"
    r"|(?:Current thread|Thread|Stack)\b.*\(most recent call first\)|Extension modules: "
)

# What names the process that has written a line; what passes it on may add another.
_OF_A_RANK = re.compile(r"(?:\[rank\d+\]: )+")
_BEHIND_A_LINE = re.compile(r"\*\*\* SIG[A-Z]+ received at time=.*")  # of one that has no end


class Level(IntEnum):
    """How loud a line is."""

    QUIET = 0
    WARNING = 1
    SAID = 2
    LOUD = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A line: where its words may begin, and the type of exception before them, if any."""

    text: str
    heads: tuple[int, ...]
    level: Level
    raised: str = ""

    @property
    def loud(self) -> bool:
        """Whether it says that it tells of an error: by its level, a type, or how it begins."""
        if self.level in {Level.LOUD, Level.WARNING} or self.raised:
            return self.level is not Level.WARNING
        if any(_PROGRAM.match(self.text, head) for head in self.heads):
            return True
        if _NATIVE.search(self.text, 0, self.heads[-1]):
            return True
        return any(_BEGINS_LOUD.match(self.text, head) for head in self.heads)


def read(text: str, *, of_exception: bool = False) -> Line:
    """Return `text`, cut where it is endless, with its heads.

    The first line `of_exception` begins with its type, whatever that is called.
    """
    text = text[:LONGEST]
    heads, level, raised, position = [0], Level.SAID, "", 0
    while len(heads) < MOST_HEADS:
        part = _PART.match(text, position)
        if part is None and not raised:
            part = _TYPE.match(text, position) or (of_exception and _NAME.match(text)) or None
            raised = part[1] if part else ""
        if part is None:
            break
        level = _louder(level, part[0])
        position = part.end()
        heads.append(position)
    return Line(text, tuple(heads), level, raised)


def clauses(line: Line) -> Iterator[int]:
    """Yield where further clauses of `line` begin; not within quotes, nor after what is data.

    An error that is passed on is such a clause though it is quoted.
    """
    first = line.heads[-1]
    data = _DATA.search(line.text, first)
    end = data.start() if data else len(line.text)
    quoted = tuple(quotation.span() for quotation in _QUOTED.finditer(line.text, first))
    for mark in _CLAUSE.finditer(line.text, first, end):
        if not any(begin <= mark.start() < stop for begin, stop in quoted):
            yield mark.end()
    for begin, _ in quoted:
        if begin < end and _PASSES_ON.search(line.text, 0, begin):
            yield begin + 1


def own_words(text: str) -> str:
    """Return `text` without what it quotes, and without what it says of some data."""
    data = _DATA.search(text)
    return _QUOTED.sub(" ", text[: data.start()] if data else text)


def quotes(text: str, position: int) -> bool:
    """Whether what stands at `position` of `text` is quoted, or said of some data."""
    data = _DATA.search(text, 0, position)
    return data is not None or any(
        quotation.start() < position < quotation.end() for quotation in _QUOTED.finditer(text)
    )


def tells_of_data(text: str, end: int, pattern: str) -> bool:
    """Whether what stands in `text` up to `end` is quoted, or said of some data.

    Words that stand in `pattern`, the pattern that fits there, are the maker's own; so is what it
    quotes, if the pattern does not begin with a gap.
    """
    skips = _SKIPS.search(pattern) is not None
    if skips and any(
        quotation.start() < end < quotation.end() for quotation in _QUOTED.finditer(text)
    ):
        return True
    words = (match[0] for match in _DATA.finditer(text, 0, end))
    return any(word.lower() not in pattern.lower() for word in words)


def labelled(line: Line) -> bool:
    """Whether `line` names what stands in it as an example of some data."""
    return any(_LABEL.match(line.text, head) for head in line.heads)


def survived(text: str) -> bool:
    """Whether `text` tells of an error after which its job went on."""
    return _SURVIVED.search(text) is not None


def of_a_stack(text: str) -> bool:
    """Whether `text` is a line of a stack, or empty: it belongs to the line before."""
    return _OF_A_STACK.match(text, begin_of(text)) is not None


def of_a_handler(text: str) -> bool:
    """Whether `text` is what a handler of signals writes: an effect of what was said before it."""
    return _OF_A_HANDLER.match(text, begin_of(text)) is not None


def begin_of(text: str) -> int:
    """Return where the line of a process begins behind the rank that has written it, if any."""
    rank = _OF_A_RANK.match(text)
    return rank.end() if rank else 0


def last_words(lines: Sequence[str]) -> str:
    """Return the last of the lines that is of no stack and of no handler; empty where none is.

    A handler may write on behind a line that has no end.
    """
    own = (line for line in reversed(lines) if not of_a_stack(line) and not of_a_handler(line))
    return _BEHIND_A_LINE.sub("", next(own, "")).strip()


def _louder(level: Level, part: str) -> Level:
    """Return the level of a line that was of `level` up to this part: the quietest name counts."""
    if level is Level.QUIET or _QUIET.search(part):
        return Level.QUIET
    if level is Level.WARNING or _WARNING.search(part):
        return Level.WARNING
    return Level.LOUD if _LOUD.search(part) else level
