"""Process 1 of a host: it gives the host its own name and folders, and ends with its stdin.

This machine's root file system is read-only there, and what a host writes lies in folders of its
own; another one that it is given is its own to write, as a container's. Whatever runs on the host
ends with this process.

    python process_one.py NAME ROOT SHARED_FOLDER...
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

MEMORY = "/dev/shm"  # noqa: S108 - mounted anew
OWN = ("/tmp", "/root", "/home", "/srv", "/mnt", "/run", "/var/tmp", MEMORY)  # noqa: S108 - as above
KERNEL = ("/proc", "/sys", "/dev")
STAGE = "/mnt"


def main() -> None:
    """Be the first process of a host."""
    name, root, *shared = sys.argv[1:]
    socket.sethostname(name)
    _mount("--make-rprivate", "/")
    if root == "/":
        _close(name, shared)
    else:
        _change(name, root)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is left to this process
    print("ready", flush=True)
    sys.stdin.read()


def _close(name: str, shared: list[str]) -> None:
    """Have this machine's root file system read-only, but for folders of the host's own."""
    _own(STAGE)
    for folder in shared:
        _bind(folder, f"{STAGE}{folder}")
    for folder in OWN:
        if folder != STAGE:
            _own(folder)
    for point in _mount_points():
        if not _is_in(point, (*OWN, *KERNEL)):
            _mount("-o", "remount,bind,ro", point)
    for folder in shared:
        _bind(f"{STAGE}{folder}", folder)
        _mount("-o", "remount,bind,ro", folder)
    _run("umount", "--recursive", STAGE)
    _own(STAGE)
    for file, text in _names(name).items():
        Path("/run", file).write_text(text)
        _mount("--bind", f"/run/{file}", f"/etc/{file}")


def _change(name: str, root: str) -> None:
    """Have the root file system `root` in place of this machine's; writes are kept in memory."""
    _own(STAGE)
    new, upper, work = (f"{STAGE}/{folder}" for folder in ("root", "upper", "work"))
    for folder in (new, upper, work):
        Path(folder).mkdir()
    layers = f"lowerdir={root},upperdir={upper},workdir={work}"
    _mount("-t", "overlay", "-o", layers, "none", new)
    for folder in KERNEL:
        _mount("--rbind", folder, f"{new}{folder}")
    _own(f"{new}{MEMORY}")
    for file, text in _names(name).items():
        Path(new, "etc", file).write_text(text)
    _run("pivot_root", new, f"{new}{STAGE}")
    os.chdir("/")
    _run("umount", "--lazy", STAGE)


def _names(name: str) -> dict[str, str]:
    """Return the files of `/etc` by which a host knows its name."""
    return {"hostname": name, "hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n"}


def _own(folder: str) -> None:
    _mount("-t", "tmpfs", "-o", "mode=1777", "none", folder)


def _bind(source: str, target: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    _mount("--bind", source, target)


def _mount_points() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _is_in(point: str, folders: tuple[str, ...]) -> bool:
    return any(point == folder or point.startswith(f"{folder}/") for folder in folders)


def _mount(*words: str) -> None:
    _run("mount", *words)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main()
