"""A real HTTP server on loopback for tests: answers by path, with faults; requests are noted."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What a server says; ``cut`` sends that many bytes fewer than announced, ``drip_s`` waits
    between bytes.
    """

    body: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    drip_s: float = 0.0


Handler = Callable[["Asked"], Answer]


@dataclass
class Asked:
    """A request."""

    method: str
    path: str  # with its query
    headers: dict[str, str]
    body: bytes = b""
    number: int = 0  # of requests for this very path, from 1 on


class Server:
    """The server of a test: its address and what it was asked."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    def note(self, asked: Asked) -> Asked:
        with self._lock:
            asked.number = 1 + sum(a.path == asked.path for a in self.asked)
            self.asked.append(asked)
        return asked


@contextmanager
def serving(handler: Handler) -> Iterator[Server]:
    """A server on a free port of loopback, as long as the block runs."""

    class Request(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            self._answer()

        do_HEAD = do_POST = do_GET  # noqa: N815

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            found = server.note(
                Asked(self.command, self.path, headers, self.rfile.read(length) if length else b"")
            )
            self._send(_ranged(handler(found), headers))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            body = answer.body[: len(answer.body) - answer.cut]
            if answer.drip_s:
                for i in range(len(body)):
                    if stopped.wait(answer.drip_s):
                        return
                    self.wfile.write(body[i : i + 1])
                    self.wfile.flush()
            else:
                self.wfile.write(body)
            if answer.cut:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    stopped = threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that go away
    server = Server(http.server_address[1])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        stopped.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _ranged(answer: Answer, headers: dict[str, str]) -> Answer:
    """The part that a Range header asks for, as servers of large files answer (RFC 9110, 14)."""
    asked = headers.get("range", "")
    if answer.status != 200 or not asked.startswith("bytes="):
        return answer
    first, _, last = asked.removeprefix("bytes=").partition("-")
    size = len(answer.body)
    start = int(first)
    end = min(int(last) if last else size - 1, size - 1)
    if start > end:
        return Answer(status=416, headers={"Content-Range": f"bytes */{size}"})
    span = {"Content-Range": f"bytes {start}-{end}/{size}", "Accept-Ranges": "bytes"}
    return Answer(answer.body[start : end + 1], 206, answer.kind, answer.headers | span)
