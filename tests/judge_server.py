"""A server on this machine that speaks the chat-completions API: it judges by rule, and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Handler", int], bool]
"""Told the request's number; True if it has dealt with the request."""
_RESPONSE = re.compile(
    r"\[response of assistant (\d) (\w+)\]\n(.*?)\n\[end of response of assistant \1 \2\]", re.DOTALL
)


def rating(text: str) -> int:
    """What the server thinks of a response: 1 to 10, from its text alone."""
    return hashlib.sha256(text.encode()).digest()[0] % 10 + 1


def completion(content: str | None, **choice: Any) -> dict[str, Any]:
    """The body of an answer."""
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "test-judge-2026",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103},
    }


class JudgeServer(ThreadingHTTPServer):
    """Counts what it is asked and what it answers; `asked` and `answered` are by the whole chat."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []
        self.fault: Fault = lambda handler, number: False
        self.bonus_for_first = 0
        self.delay = 0.0
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks_until_done = 2
        self.say: Callable[[str, list[str]], str] | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What to give as --base-url."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/files"):
            return self.upload(data)
        body = json.loads(data)
        if self.path.endswith("/batches"):
            return self.begin_batch(body)
        return self.complete(body)

    def do_GET(self) -> None:
        *_, kind, name = self.path.partition("?")[0].split("/")
        if name == "content":
            return self.send(200, self.server.files[kind])
        if name == "batches":
            batches = list(self.server.batches.values())
            return self.send(200, json.dumps({"object": "list", "data": batches, "has_more": False}))
        batch = self.server.batches[name]
        batch["looks"] += 1
        if batch["looks"] >= self.server.looks_until_done and batch["status"] != "completed":
            self.finish_batch(batch)
        return self.send(200, json.dumps(batch))

    def upload(self, data: bytes) -> None:
        """Keep the JSON lines of a multipart form."""
        name = f"file-{len(self.server.files)}"
        lines = [line for line in data.decode().splitlines() if line.startswith("{")]
        self.server.files[name] = "\n".join(lines)
        about = {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch"}
        self.send(200, json.dumps(about | {"status": "processed"}))

    def begin_batch(self, body: dict[str, object]) -> None:
        name = f"batch-{len(self.server.batches)}"
        about = {"id": name, "object": "batch", "created_at": 1, "status": "in_progress", "looks": 0, **body}
        self.server.batches[name] = about
        if self.server.fault(self, len(self.server.batches)):
            return
        self.send(200, json.dumps(about))

    def finish_batch(self, batch: dict[str, object]) -> None:
        """Answer every line; of the first batch each seventh fails."""
        lines = []
        for number, text in enumerate(self.server.files[str(batch["input_file_id"])].splitlines()):
            line = json.loads(text)
            if number % 7 == 3 and batch["id"] == "batch-0":
                response = {"status_code": 500, "body": {"error": {"message": "oops"}}}
            else:
                chat = json.dumps(line["body"]["messages"])
                self.server.answered[chat] += 1
                user = line["body"]["messages"][-1]["content"]
                verdict = self.verdict(user, [match[2] for match in _RESPONSE.findall(user)])
                response = {"status_code": 200, "body": completion(verdict)}
            lines.append(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}))
        name = f"file-{len(self.server.files)}"
        self.server.files[name] = "\n".join(lines)
        batch |= {"status": "completed", "output_file_id": name}

    def complete(self, body: dict[str, Any]) -> None:
        chat = json.dumps(body["messages"])
        with self.server.lock:
            self.server.asked[chat] += 1
            self.server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
            number = self.server.asked.total()
        if self.server.fault(self, number):
            return
        time.sleep(self.server.delay)
        user = body["messages"][-1]["content"]
        texts = [match[2] for match in _RESPONSE.findall(user)]
        self.answer(self.verdict(user, texts), chat)

    def verdict(self, user: str, texts: list[str]) -> str:
        if self.server.say:
            return self.server.say(user, texts)
        first, second = (rating(text) for text in texts)
        first = min(10, first + self.server.bonus_for_first)
        if "single word" in user:
            return "tie" if first == second else "1" if first > second else "2"
        return f"{first} {second}"

    def answer(self, content: str | None, chat: str = "", **choice: Any) -> None:
        """A completion."""
        with self.server.lock:
            self.server.answered[chat] += 1
        self.send(200, json.dumps(completion(content, **choice)))

    def send(self, status: int, text: str, **headers: str) -> None:
        """Any response."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        """An error as the API words it."""
        self.send(status, json.dumps({"error": {"message": message, "type": "x", "code": code}}), **headers)

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """A running server."""
    server = JudgeServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
