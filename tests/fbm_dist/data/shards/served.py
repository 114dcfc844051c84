"""Shards on a web server that serves ranges, counts what it is asked for, and can be held up."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import numpy as np

from data_tools.places import place
from fbm_dist.data.shards.cache import ShardCache
from fbm_dist.data.shards.tars import Tars
from tests.data_tools.sources.web import Web, web_server

SIZE = 40_000  # bytes of a shard


class Served:
    """A data set of `shards` random tars of `SIZE` bytes.

    Attributes:
        asked: (shard, first byte, last byte) of every GET.
        hold: called with (shard, first byte) before an answer is sent.
        send: what is sent in place of a shard's bytes, by (shard, how many times that range was asked for).
        ranges: it knows them.
        failure: its answer to everything, if not 0.
    """

    def __init__(self, web: Web, shards: int) -> None:
        random = np.random.default_rng(shards)
        self.shards = [random.bytes(SIZE) for _ in range(shards)]
        self.names = tuple(f"shards/{i:03d}.tar" for i in range(shards))
        self.sha256 = [hashlib.sha256(data).hexdigest() for data in self.shards]
        self.asked: list[tuple[int, int, int]] = []
        self.hold: Callable[[int, int], object] = lambda shard, first: None
        self.send: Callable[[int, int], bytes | None] = lambda shard, times: self.shards[shard]
        self.ranges = True
        self.failure = 0
        self.root = place(f"{web.url}/data")
        self._lock = threading.Lock()
        web.otherwise = self._answer

    def tars(self, cache: ShardCache | None) -> Tars:
        """To read them with."""
        return Tars(self.root, self.names, [SIZE] * len(self.names), np.array(self.sha256, "S64"), cache)

    def downloads(self) -> Counter[int]:
        """How often each shard's first byte was asked for as a part of the whole."""
        return Counter(shard for shard, first, last in self.asked if first == 0 and last >= 999)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        shard = int(request.path.rpartition("/")[2].removesuffix(".tar"))
        span = request.headers.get("Range", f"bytes=0-{SIZE - 1}").removeprefix("bytes=")
        first, last = map(int, span.split("-"))
        with self._lock:
            if request.command == "GET":
                self.asked.append((shard, first, last))
            times = self.asked.count((shard, first, last))
        self.hold(shard, first)
        data = self.send(shard, times)
        with suppress(ConnectionError):  # who asked was killed
            self._send(request, first, last, data)

    def _send(self, request: BaseHTTPRequestHandler, first: int, last: int, data: bytes | None) -> None:
        if data is None or self.failure:
            request.send_error(self.failure or 404)
            return
        if request.command == "GET" and first >= len(data):
            request.send_error(416)
            return
        data = data[first : last + 1] if self.ranges else data
        request.send_response(206 if "Range" in request.headers else 200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)


@contextmanager
def served(shards: int) -> Iterator[Served]:
    """Serve until the end of the block."""
    with web_server() as web:
        yield Served(web, shards)
