"""An engine server of several processes, one a node: `fake_nodes.py PORT MODEL NAME MODE OPTIONS`.

Number 0 answers as `fake_server.py` does, once all others have come; they do nothing more. As with
vLLM, the one that is asked says that it is well though another has died, and those that follow
stay though it has.
"""

from __future__ import annotations

import argparse
import runpy
import socket
import subprocess
import sys
import threading
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("server", nargs=4)
for name in ("--nodes", "--rank", "--at", "--second", "--tp"):
    parser.add_argument(name, type=int, default=0)
parser.add_argument("--leader")
parser.add_argument("--quiet", action="store_true")
given = parser.parse_args()

FAKE = Path(__file__).with_name("fake_server.py")
if given.rank:
    assert given.quiet
    if given.server[3] == "lame":
        sys.exit("RuntimeError: no kernel on the second node")
    while True:
        try:
            link = socket.create_connection((given.leader, given.at))
            break
        except OSError:
            threading.Event().wait(0.1)
    with subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"]):
        print("follows", flush=True)  # and so does a worker of its own, as vLLM has it
        threading.Event().wait()
with socket.create_server((given.leader, given.at)) as meeting:
    links = [meeting.accept()[0] for _ in range(given.nodes - 1)]
sys.argv = [str(FAKE), *given.server]
runpy.run_path(str(FAKE), run_name="__main__")
