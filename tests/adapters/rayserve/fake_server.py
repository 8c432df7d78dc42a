"""A tiny OpenAI server that can be told how to fail: `python fake_server.py PORT MODE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORT, MODEL, NAME, MODE = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
state: dict[str, Any] = {"tokens": 0, "logprob": -1.0, "mode": MODE, "folder": MODEL}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.tell(200, f"running 0\nwaiting 0\ntokens {state['tokens']}\n")
        elif self.path == "/model":
            self.tell(200, state["folder"])
        else:
            self.tell(503 if state["mode"] == "sick" else 200, "{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
        if self.path == "/mode":
            state["mode"] = body
        elif self.path == "/reload":
            state["folder"], state["logprob"] = body["to"], state["logprob"] - 1
        elif self.headers["authorization"] != f"Bearer {os.environ['FAKE_KEY']}":  # noqa: TID251 - its key
            self.tell(401, "{}")
            return
        if self.path.startswith("/v1") and state["mode"] == "hanging":
            threading.Event().wait()
        state["tokens"] += 1
        logprob = float("nan") if state["mode"] == "nan" else state["logprob"]
        if state["mode"] == "silent" and isinstance(body, dict) and body.get("echo"):
            self.tell(400, "{}")
            return
        tokens = len(body["prompt"]) if isinstance(body, dict) and "prompt" in body else 1
        values = [None, *[logprob] * tokens]
        choice = {"finish_reason": "length", "logprobs": {"token_logprobs": values}}
        if not (isinstance(body, dict) and body.get("echo")):
            choice["logprobs"] = {"token_logprobs": [logprob]}
        self.tell(200, json.dumps({"choices": [choice]}))

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
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print("child", child.pid, flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
