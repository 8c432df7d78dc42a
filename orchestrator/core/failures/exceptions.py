"""What an exception shows by its type, its number and its own words, and what is likely otherwise.

What no signature knows is the user's own code only where the exception is plain Python's, or where
its words tell of nothing but code. Everything else is unknown, and never the user's fault.
"""

from __future__ import annotations

import builtins
import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from types import MappingProxyType

from orchestrator.core.failures.kinds import DISK_FULL, FailureKind
from orchestrator.core.failures.lines import own_words
from orchestrator.core.failures.python_errors import PLAIN, bases, is_plain, of_a_package
from orchestrator.core.failures.signatures import Matcher, Sign, strongest

# What says so where no signature does: `Failure.sign` of such failures.
BY_PLAIN = "plain_exception"
BY_JOB = "known_to_the_job"
BY_TYPE = "type_of_exception"
BY_ERRNO = "errno_"  # and its name
BY_SIGNAL = "signal_"  # and its name
_K = FailureKind
# What these are needs no signature; the names are those of the types, or of bases of theirs.
_OF_TYPES: Mapping[str, FailureKind] = MappingProxyType(
    {
        "orchestrator.job.ParityError": _K.PARITY,
        "orchestrator.core.errors.StorageError": _K.STORAGE,
        "orchestrator.core.errors.StorageSetUpError": _K.SET_UP,
        "orchestrator.core.errors.ArtifactError": _K.DATA,
        "orchestrator.core.errors.JobError": _K.USER_CODE,
        "orchestrator.core.errors.SoftwareError": _K.SET_UP,
        "MemoryError": _K.HOST_MEMORY,
        "FloatingPointError": _K.NUMERICAL_DIVERGENCE,
    }
)
_OF_ERRNO: Mapping[FailureKind, tuple[str, ...]] = MappingProxyType(
    {
        _K.INTERCONNECT: (
            *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ETIMEDOUT", "EPIPE", "EHOSTUNREACH"),
            *("EHOSTDOWN", "ENETUNREACH", "ENETDOWN", "ENETRESET", "ENOTCONN", "ESHUTDOWN"),
            *("EADDRINUSE", "EADDRNOTAVAIL", "ECOMM", "EPROTO", "ENONET", "ENOBUFS"),
        ),
        _K.STORAGE: (
            *("EIO", "ESTALE", "ENOSPC", "EDQUOT", "EROFS", "EREMOTEIO", "ENOLCK", "EUCLEAN"),
            *("EBADMSG", "ENOLINK", "ENOMEDIUM", "EMEDIUMTYPE", "ETIME", "EBADE", "EFBIG"),
            *("EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED", "ENOKEY"),
        ),
        _K.HOST_MEMORY: ("ENOMEM",),
        _K.SOFTWARE: ("EMFILE", "ENFILE", "EAGAIN", "EUSERS"),
        _K.DEVICE_LOST: ("ENXIO", "ENODEV"),
        _K.SET_UP: ("ENOEXEC", "ELIBACC", "ELIBBAD"),
    }
)
_KINDS: Mapping[int, FailureKind] = MappingProxyType(
    {
        getattr(errno, name): kind
        for kind, names in _OF_ERRNO.items()
        for name in names
        if hasattr(errno, name)
    }
)
_FRAME = re.compile(r' +File "[^"]*", line \d+')
_SAID = re.compile(
    r"((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Died|Failure|Full|Lost))"
    r"(?:: ?(.*))?$"
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM = re.compile(
    rf"\[Errno (?:{errno.ENOSPC}|{errno.EDQUOT})\]"
    r"|(?i:no space left on device|disk quota exceeded)"
)
_ERRNO = re.compile(r"\[Errno (\d+)\]|\berrno[:= ]+(\d+)")
# Exceptions of Python that carry no number of their own.
_LINKS = frozenset({"ConnectionError", "TimeoutError", "gaierror"})
# Not what a job's code says, and not what a job can help.
_OF_NOBODY = frozenset({"KeyboardInterrupt", "EOFError", "OSError", "SystemError"})
# Words of hardware, drivers, links, hosts and services. Who says one of them, outside of what it
# quotes, may tell of more than of its own code.
_FOREIGN = re.compile(
    r"""(?ix)
    \b(?: overflow\w*|underflow\w*|nan|infs?|infinite|diverg\w*|databases?|locked|handles?
      |process(?:es)?|background|client|clients|fs|io|cuda|cudnn|cublas\w*|cusparse
      |cusolver|nvrtc|nvml|nvlink|nvswitch|nvidia|gpus?|npus?|mlus?|xpus?|dcus?|ppus?|tpus?
      |hpus?|musa|mudnn|mublas|maca|mcblas|hip\w*|rocm|rccl|miopen|roc\w+|triton|ascend\w*
      |acl\w*|aicore|aicpu|cann|hccl|hccs|hccp|cnrt|cncl|cnnl|cndrv|nccl|mccl|bkcl|xccl
      |oneccl|ccl|gloo|mpi|ucx|ucc|rdma|roce|ibv?_?\w*|infiniband|mlx5\w*|verbs|efa|sycl
      |level.zero|opencl|kunlun|cambricon|mthreads|metax|hygon|tbe|gsp|xid|ecc|hbm|sram
      |vram|dram|devices?|chip|accelerators?|drivers?|firmware|hardware|kernels?|streams?
      |pcie?|bus|dma|memory|oom|alloc\w*|mmap|shm|out.of.memory|swap|cgroup|ulimit
      |hugepages?|network\w*|sockets?|connect\w*|disconnect\w*|reset\ by|peers?|remote
      |hosts?|nodes?|nic|tcp|udp|ssl|tls|dns|http\w*|rpc|grpc|ports?|address\ already
      |endpoint|server|servers|services?|rendezvous|stores?|store->get|heartbeats?
      |watchdogs?|barriers?|collectives?|all_?reduce|all_?gather|broadcast|communicat\w+
      |process\ ?groups?|ranks?\ \d+|workers?|daemon|raylet|actors?|engine|engines|executor
      |timed?.?outs?|deadline|unreachable|unavailable|abort\w*|terminat\w+|killed|kill
      |signals?|sig[a-z]{3,4}|segfault|segmentation|core\ dump\w*|crash\w*|corrupt\w*
      |checksums?|disks?|quota|file\ ?systems?|i/o|input/output|nfs|lustre|s3|gcs|hdfs
      |bucket|read-only|permission|hung|hangs?|stuck|deadlock\w*|internal|inner|runtime
      |unspecified|launch\w*|synchroni[sz]\w*|async\w*|exit(?:ed|\ ?code|\ status)
      |status\ code|thread|futex|pthread|fork|subprocess|child|plugin|librar(?:y|ies)
      |symbol|abi|undefined|compil\w+|unsupported|not\ supported|not\ implemented|backends?
      |health\w*|unhealthy|lost|fail\ to|apis?|requests?|credentials?|files?|director(?:y|ies)
      |folders?|checkpoints?|archives?|download\w*|upload\w*|packages?|installed|restor\w*
      |plugins?|dependenc(?:y|ies)|repl(?:y|ies)|retries|attempts
      |redirects?|headers?|bytes|resolving|panic\w*
      |(?:failed|unable|could\ not|couldn't)\ (?:to\ )?(?!(?:convert|infer|interpret|broadcast
        |cast|reshape|determine|match)\b)\w+
      |(?:cannot|can't|can\ not)\ (?:be\ )?(?:read|open\w*|find|found|load\w*|connect|access\w*
        |allocat\w*|start\w*|creat\w*|writ\w*|fetch\w*|reach\w*|bind|locat\w*|initiali\w*)
    )\b
    | \b0x[0-9a-f]{2,} | \blib\w+\.so | \.(?:so|cpp|cc|cu|cuh|hpp)\b
    | \b(?:error|err|ret|return|status|result|exit)[ _]?(?:code|no|num)?\W{0,4}(?:is\ )?-?\d+
    """
)
# What code that misuses a library is told of. That alone makes a `RuntimeError` likely its own.
_OF_CODE = re.compile(
    r"""(?ix)\b(?:
      shapes?|sizes?|dim(?:s|ensions?)?|dtypes?|types?|tensors?|arrays?|matri(?:x|ces)|arguments?|args
      |kwargs|param\w*|expected|got|must|should|invalid|wrong|bad|mismatch\w*|config\w*
      |ind(?:ex|ices|exes)|keys?|attributes?|values?|labels?|tokens?|tokenizers?|vocab\w*
      |batch\w*|steps?|epochs?|loss\w*|grad\w*|data|datasets?|rows?|columns?|samples?|examples?
      |schedules?|schedulers?|generators?|iterat\w*|dict\w*|lists?|tuples?|strings?|modules?|models?
      |layers?|weights?|optimizers?|sequences?|inputs?|outputs?|targets?|masks?|class(?:es)?
      |functions?|methods?|objects?|fields?|duplicates?|empty|none|null|negative
      |positive|zero|ranges?|lengths?|train\w*|eval\w*|learning|rate|seeds?
      |prompts?|rewards?|rollouts?|answers?|questions?|texts?|documents?|messages?|templates?
      |assert\w*|unexpected|twice
    )\b"""
)
_COMPILERS = re.compile(r"^[\w.]*(?:_dynamo|_inductor|Inductor|Compil|Lowering|triton)[\w.]*:")
# Of a server, a bucket or a host.
_ADDRESS = re.compile(r"\b[a-z][a-z0-9]{1,7}://\w|\b\d{1,3}(?:\.\d{1,3}){3}\b")
# Who says so where it is not of the job's own making tells that software failed.
_FAILED = re.compile(
    r"(?i)\b(?:fail(?:ed|ure|ures|s|ing)?|errors?|abort(?:ed|ing)?|crash(?:ed|es)?|abnormal\w*"
    r"|exceptions?|unexpectedly)\b"
)
# Where words are joined: `WorkerProc`, `FSTimeoutError`.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")
# Codes as makers write them: `CUDNN_STATUS_FAILED`, `EZ9999`, `cnrtSuccess`.
_CODES = re.compile(
    r"\b[A-Z]{2,}[A-Z0-9]*(?:_[A-Z0-9]+){2,}\b|\b[A-Z]{1,4}\d{3,6}\b"
    r"|\b\w+::\w+|\b(?:cu|nccl|hccl|cnrt|cncl|acl|rt|hip|mc|musa|xpu|mt|ze|ibv_)[A-Z]\w+"
    r"|\berror:? -?\d{2,}\b"
)


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception.

    Attributes:
        types: Names of its type and of its bases, its own first; with the module, where known.
        message: What it says.
        number: `errno`, where it has one.
        library: Whether its innermost frame is that of a library.
        explicit: Whether it is a cause by `raise ... from`, or the one that was raised last.
    """

    types: tuple[str, ...]
    message: str
    number: int | None = None
    library: bool = False
    explicit: bool = True

    @property
    def in_full(self) -> str:
        """What it says, with its type, as a traceback ends with it."""
        return f"{self.types[0]}: {self.message}" if self.message else self.types[0]

    @property
    def plain(self) -> bool:
        """Whether it is plain Python's."""
        return is_plain(self.types)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an exception shows: `sign` names what says so, `line` is the one with the signature."""

    kind: FailureKind
    certain: bool
    sign: str = ""
    line: str = ""


def judge(chain: Sequence[Raised], signatures: Matcher) -> Judgement:
    """Return what an exception shows, which is the first of `chain`, before what caused it.

    What was merely being handled when it was raised counts where it is not plain itself.
    """
    inner = _inner(chain[0])
    if inner is not None:
        inner_judgement = judge((inner, *chain[1:]), signatures)
        if inner_judgement.kind is not FailureKind.UNKNOWN:
            return inner_judgement
    first = chain[0]
    chain = tuple(takewhile(lambda raised: raised.explicit or not first.plain, chain))
    known = tuple(_signed(chain, signatures))
    if known:
        best = next((judgement for judgement in known if judgement.certain), known[0])
        full = best.kind is _K.STORAGE and any(map(_no_room, chain))
        return replace(best, sign=DISK_FULL) if full else best
    if first.plain:
        return Judgement(FailureKind.USER_CODE, certain=False, sign=BY_PLAIN)
    others = [raised for raised in chain if _of_others(raised)]
    if others:
        kind = _K.SOFTWARE if any(map(_failed, others)) else _K.UNKNOWN
        return Judgement(kind, certain=False)
    if any(raised.plain for raised in chain):
        return Judgement(FailureKind.USER_CODE, certain=False, sign=BY_PLAIN)
    return Judgement(FailureKind.USER_CODE, certain=False)


def _inner(raised: Raised) -> Raised | None:
    """Return the exception whose traceback ends what `raised` says, as wrappers of others do."""
    lines = raised.message.splitlines()
    frames = [at for at, line in enumerate(lines) if _FRAME.match(line)]
    begin = frames[-1] + 1 if frames else len(lines)
    matches = [(at, match) for at in range(begin, len(lines)) if (match := _SAID.match(lines[at]))]
    if not matches:
        return None
    at, last = matches[-1]
    return Raised(bases(last[1]), "\n".join([last[2], *lines[at + 1 :]]).strip())


def _signed(chain: Sequence[Raised], signatures: Matcher) -> Iterator[Judgement]:
    """Yield what each of `chain` shows for itself."""
    for raised in chain:
        shown = _by_signature(raised, signatures)
        vague = shown is not None and signatures.by_name[shown.sign].loud
        judgement = _by_type(raised) or (None if vague else shown) or _by_number(raised) or shown
        if judgement is not None:
            yield judgement


def _by_type(raised: Raised) -> Judgement | None:
    kind = next((_OF_TYPES[name] for name in raised.types if name in _OF_TYPES), None)
    return None if kind is None else Judgement(kind, certain=True, sign=BY_TYPE)


def _by_signature(raised: Raised, signatures: Matcher) -> Judgement | None:
    sign = find(raised, signatures)
    if sign is None:
        return None
    # a mistake of the job's own code is certain once it comes again, which is not known here
    certain = sign.shows == "cause" and sign.signature.kind is not FailureKind.USER_CODE
    return Judgement(sign.signature.kind, certain, sign.signature.name, sign.line)


def find(raised: Raised, signatures: Matcher) -> Sign | None:
    """Return what the words of `raised` show: of lines that say as much, the later is nearer.

    Drivers begin with where in their own source they are, and come to the code further down.
    """
    first, *below = raised.in_full.splitlines()
    words = first.partition(": ")[2]
    heads = [first, *(f"{name}: {words}" for name in raised.types[1:] if name not in _GENERAL)]
    plain = raised.plain
    signs = [signatures.in_words(head, plain=plain) for head in heads[: 1 if plain else None]]
    top = strongest(sign for sign in signs if sign)
    if plain:
        return top or strongest(_typed_by_base(raised, words, signatures))
    lower = strongest(
        sign for line in below if (sign := signatures.in_words(line, plain=False, first=False))
    )
    if top and lower and lower.signature.kind is _K.USER_CODE and _COMPILERS.search(first):
        return top  # of code that it made itself
    return strongest(sign for sign in (lower, top) if sign)


def _typed_by_base(raised: Raised, words: str, signatures: Matcher) -> Iterator[Sign]:
    for name in raised.types[1:]:
        sign = signatures.in_words(f"{name}: {words}", plain=True) if name in PLAIN else None
        if sign:
            yield sign


def _by_number(raised: Raised) -> Judgement | None:
    shorts = {name.rpartition(".")[2] for name in raised.types}
    if raised.plain:
        return None
    match = _ERRNO.search(raised.message)
    of_system = "OSError" in shorts
    number = raised.number if of_system else None
    number = number or (int(match[1] or match[2]) if match else None)
    kind = _KINDS.get(number) if number else None
    if kind is not None and number is not None:
        return Judgement(kind, certain=True, sign=f"{BY_ERRNO}{errno.errorcode[number]}")
    if of_system and shorts & _LINKS:
        return Judgement(FailureKind.INTERCONNECT, certain=False, sign=BY_TYPE)
    return None


def _no_room(raised: Raised) -> bool:
    """Whether it says that a disk, or a quota of it, is full."""
    return raised.number in _FULL or _NO_ROOM.search(raised.message) is not None


def _of_others(raised: Raised) -> bool:
    """Whether it may tell of more than of the code that it was raised in."""
    short = raised.types[0].rpartition(".")[2]
    if raised.plain:
        return False
    if raised.library or of_a_package(raised.types[0]):
        return True
    if not _OF_NOBODY.isdisjoint((short, *raised.types[1:])):
        return True
    if _ADDRESS.search(raised.message):
        return True
    words = own_words(raised.message)
    name = "" if hasattr(builtins, short) else short
    apart = _CAMEL.sub(" ", f"{name} {words}")
    if _FOREIGN.search(apart) or _FOREIGN.search(words) or _CODES.search(words):
        return True
    return short in _GENERAL and not _OF_CODE.search(raised.message)


def _failed(raised: Raised) -> bool:
    """Whether it says that something failed, and nothing of code."""
    words = own_words(raised.message)
    return _FAILED.search(words) is not None and _OF_CODE.search(words) is None


_GENERAL = frozenset({"RuntimeError", "Exception", "BaseException", "OSError", "SystemError"})
