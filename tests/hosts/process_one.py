"""Process 1 of a host: it gives the host its own name and folders, and ends with its stdin.

The root file system is read-only there; what a host writes lies in folders of its own. Whatever
runs on the host ends with this process.

    python process_one.py NAME SHARED_FOLDER...
"""

import signal
import socket
import subprocess
import sys
from pathlib import Path

OWN = ("/tmp", "/root", "/home", "/srv", "/mnt", "/run", "/var/tmp", "/dev/shm")  # noqa: S108 - mounted anew
KERNEL = ("/proc", "/sys", "/dev")
STAGE = "/mnt"


def main() -> None:
    """Be the first process of a host."""
    name, *shared = sys.argv[1:]
    socket.sethostname(name)
    _mount("--make-rprivate", "/")
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
    for file, text in {
        "hostname": name,
        "hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n",
    }.items():
        Path("/run", file).write_text(text)
        _mount("--bind", f"/run/{file}", f"/etc/{file}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is left to this process
    print("ready", flush=True)
    sys.stdin.read()


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
