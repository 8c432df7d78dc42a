"""A tiny OpenAI server that can be told how to fail: `python fake_server.py PORT MODE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORT, MODEL, NAME, MODE = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
state: dict[str, Any] = {"tokens": 0, "logprob": -1.0, "mode": MODE, "folder": MODEL, "early": 0}

FIGURES = os.environ.get("FAKE_FIGURES", "running waiting tokens").split()  # noqa: TID251 - its names


def folders_in(body: Any) -> Iterator[str]:
    """Yield the folders that a body names: new weights are told so at whichever path."""
    if isinstance(body, dict):
        for part in body.values():
            yield from folders_in(part)
    elif isinstance(body, str) and Path(body).is_absolute():
        yield body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            running = 8 if state["mode"] == "stalled" else 0
            state["tokens"] += state["mode"] == "busy-nan"
            running_name, waiting_name, tokens_name = FIGURES
            waits = f"{waiting_name} 0\n{tokens_name} {state['tokens']}\n"
            self.tell(200, f"{running_name} {running}\n{waits}")
        elif self.path == "/model":
            self.tell(200, state["folder"])
        elif self.path == "/v1/models":
            name = "another" if state["mode"] == "another" else NAME
            status = 401 if state["mode"] == "locked" else 200
            self.tell(status, json.dumps({"data": [{"id": name}]}))
        else:
            self.tell(503 if state["mode"] == "sick" else 200, "{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
        if self.path == "/mode":
            state["mode"] = body
            self.tell(200, "{}")
        elif folders := [*folders_in(body)]:
            state["folder"], state["logprob"] = folders[0], state["logprob"] - 1
            self.tell(200, "{}")
        elif self.headers["authorization"] != f"Bearer {os.environ['FAKE_KEY']}":  # noqa: TID251 - its key
            self.tell(401, "{}")
        elif state["mode"] == "hanging":
            threading.Event().wait()
        elif state["mode"].startswith("pooling"):
            self.embed(state["mode"] == "pooling-nan")
        elif state["mode"] == "early" and self.too_early():
            self.tell(503, "loading")
        else:
            self.complete(body)

    def too_early(self) -> bool:
        state["early"] += 1
        return bool(state["early"] < 3)

    def complete(self, body: dict[str, Any]) -> None:
        mode = state["mode"]
        if mode == "silent" and body.get("echo"):
            self.tell(400, "{}")
            return
        if mode == "refusing-nan" and "logprobs" in body:
            words = "Out of range float values are not JSON compliant"  # vLLM's
            self.tell(400, json.dumps({"error": {"message": words}}))
            return
        state["tokens"] += state["mode"] != "stalled"
        logprob = float("nan") if state["mode"].endswith("nan") else state["logprob"]
        values = [None, *[logprob] * len(body["prompt"])] if body.get("echo") else [logprob]
        choice = {"finish_reason": "length", "logprobs": {"token_logprobs": values}}
        self.tell(200, json.dumps({"choices": [choice]}))

    def embed(self, broken: bool) -> None:  # noqa: FBT001 - its own mode
        if self.path != "/v1/embeddings":
            self.tell(404, "{}")
            return
        number = float("nan") if broken else 0.5
        self.tell(200, json.dumps({"data": [{"embedding": [0.5, number]}]}))

    def tell(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


if MODE == "oom":
    head = "(EngineCore pid=7) ERROR 11-28 22:45:01 [core.py:866]"
    print(f"{head} Traceback (most recent call last):")
    print(f"{head} torch.OutOfMemoryError: CUDA out of memory")
    sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
if not Path(MODEL).is_dir() or (Path(MODEL) / "bad").exists():
    sys.exit(f"fake_server.py: error: {MODEL} is no model")
if MODE == "noisy":
    print("x" * 40_000)
    for number in range(20_000):
        print("line", number)
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print("child", child.pid, flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
