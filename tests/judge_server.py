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


def completion(content: object, **choice: Any) -> dict[str, Any]:
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
    """Counts what it is asked and what it answers, by the whole chat; keeps bodies and headers of what it is asked.

    `batch_fault` is told of every request about batches ("upload", "created", "list", "look", "content"); `batch_line`
    says what becomes of a line of a batch: None = an answer, {} = a line cut short.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.fault: Fault = lambda handler, number: False
        self.bonus_for_first = 0
        self.delay = 0.0
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks_until_done = 2
        self.batch_fault: Callable[[Handler, str], bool] = lambda handler, what: False
        self.batch_line: Callable[[str, int], dict[str, Any] | None] = lambda batch, number: None
        self.say: Callable[[str, list[str]], str] | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What to give as --base-url."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def keep(self, text: str) -> str:
        """Make a file; its name."""
        name = f"file-{len(self.files)}"
        self.files[name] = text
        return name

    def sent_in(self, batch: dict[str, Any]) -> list[str]:
        """The lines of a batch."""
        return self.files[str(batch["input_file_id"])].split("\n")

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: JudgeServer
    chat: str
    """What is asked, as it is counted."""
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
        what = {"content": "content", "batches": "list"}.get(name, "look")
        if self.server.batch_fault(self, what):
            return None
        if what == "content":
            return self.send(200, self.server.files[kind])
        if what == "list":
            batches = list(self.server.batches.values())
            return self.send(200, json.dumps({"object": "list", "data": batches, "has_more": False}))
        with self.server.lock:
            batch = self.server.batches[name]
            batch["looks"] += 1
            if batch["looks"] >= self.server.looks_until_done and batch["status"] == "in_progress":
                self.finish_batch(batch)
        return self.send(200, json.dumps(batch))

    def upload(self, data: bytes) -> None:
        """Keep the JSON lines of a multipart form."""
        if self.server.batch_fault(self, "upload"):
            return
        name = self.server.keep("\n".join(line for line in data.decode().split("\n") if line.startswith("{")))
        about = {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch"}
        self.send(200, json.dumps(about | {"status": "processed"}))

    def begin_batch(self, body: dict[str, object]) -> None:
        name = f"batch-{len(self.server.batches)}"
        about = {"id": name, "object": "batch", "created_at": 1, "status": "in_progress", "looks": 0, **body}
        self.server.batches[name] = about
        if not self.server.batch_fault(self, "created"):
            self.send(200, json.dumps(about))

    def finish_batch(self, batch: dict[str, Any]) -> None:
        """Answer every line, as `batch_line` has it."""
        lines = []
        for number, text in enumerate(self.server.sent_in(batch)):
            line = json.loads(text)
            failed = self.server.batch_line(batch["id"], number)
            if failed is None:
                self.server.answered[json.dumps(line["body"]["messages"])] += 1
                user = line["body"]["messages"][-1]["content"]
                verdict = self.verdict(user, [match[2] for match in _RESPONSE.findall(user)])
                failed = {"status_code": 200, "body": completion(verdict)}
            answered = json.dumps({"custom_id": line["custom_id"], "response": failed, "error": None})
            lines.append(answered if failed else answered[:40])
        batch |= {"status": "completed", "output_file_id": self.server.keep("\n".join(lines))}

    def complete(self, body: dict[str, Any]) -> None:
        self.chat = json.dumps(body["messages"])
        with self.server.lock:
            self.server.asked[self.chat] += 1
            self.server.bodies.append(body)
            self.server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
            number = self.server.asked.total()
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            if self.server.fault(self, number):
                return
            time.sleep(self.server.delay)
        finally:
            with self.server.lock:
                self.server.at_once -= 1
        user = body["messages"][-1]["content"]
        self.answer(self.verdict(user, [match[2] for match in _RESPONSE.findall(user)]))

    def verdict(self, user: str, texts: list[str]) -> str:
        if self.server.say:
            return self.server.say(user, texts)
        first, second = (rating(text) for text in texts)
        first = min(10, first + self.server.bonus_for_first)
        if "single word" in user:
            return "tie" if first == second else "1" if first > second else "2"
        return f"{first} {second}"

    def answer(self, content: object, **choice: Any) -> None:
        """A completion."""
        with self.server.lock:
            self.server.answered[self.chat] += 1
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
