"""A web server that can misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """Serves `files` by path (without query); `answers` by path come first, one after the other, the last for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.otherwise = status(404)
        self.asked: list[str] = []  # methods and paths with their queries
        self.let_go = threading.Event()  # what hangs ends with the test

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(f"{request.command} {request.path}")
        path = request.path.partition("?")[0]
        if answers := self.answers.get(path):
            (answers.pop(0) if len(answers) > 1 else answers[0])(request)
        elif path in self.files:
            send(self.files[path])(request)
        else:
            self.otherwise(request)


def send(content: bytes, length: int | None = None, **headers: str) -> Answer:
    """An answer with that content, which claims to have `length` bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    return answer


def status(code: int, **headers: str) -> Answer:
    """A refusal."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@contextmanager
def web_server() -> Iterator[Web]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            serve(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serve = Web(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield serve
    serve.let_go.set()
    server.shutdown()
    server.server_close()
