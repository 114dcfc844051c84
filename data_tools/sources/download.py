"""Download one file whole or not at all: in chunks, with a limit on its size and on silence, tried again where that may help."""

from __future__ import annotations

import errno
import http
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.callbacks import Callback
from upath import UPath

from data_tools.places import CHUNK, FINAL, FULL, line
from data_tools.sources.entries import is_web, scheme_of, spelt
from data_tools.videos import Unusable

Beat = Callable[[int], None]

PAUSE = 1.0  # seconds before the second attempt; doubled before every further one
LONGEST_PAUSE = 60.0  # that a server may ask for
CONNECT = 30.0  # seconds until a web server must have answered the call
SILENCE = 60.0  # seconds that it may say nothing
SLOWEST = 1_000  # bytes a second over as long a time: less is a server that holds us up
PASSING = frozenset({408, 425, 429})  # HTTP statuses that are worth another try, beside those from 500 on
# aiohttp's errors by name: it is loaded with the first web file only
REDIRECTED = frozenset({"TooManyRedirects", "InvalidUrlRedirectClientError", "NonHttpUrlRedirectClientError"})


class Absent(Unusable):
    """It is not there, or not for us: trying again would not help."""


class Unreachable(Unusable):
    """It could not be had this time; another day it may."""


def download(there: UPath, path: Path, beat: Beat, attempts: int, max_bytes: int) -> None:
    """Write a remote file to `path`; nothing stays there when it fails.

    Args:
        there: the file.
        path: where it goes, in a folder that exists.
        beat: called with 0 between chunks: a sign of life.
        attempts: how often a failure that may pass is tried, with growing pauses.
        max_bytes: a larger file is refused, whether the server says so or never ends.
    Raises:
        Absent: the server has no such file, or not for us.
        Unreachable: every attempt failed.
        Unusable: it is too large.
        OSError: the disk here is full, or may not be written to.
    """
    path.open("wb").close()  # what is wrong with this disk is no verdict on the film
    try:
        for attempt in range(1, attempts + 1):
            try:
                return _transfer(there, path, _Meter(beat, max_bytes))
            except Unusable:
                raise
            except Exception as error:  # every kind of storage has exceptions of its own
                if getattr(error, "errno", None) in FULL:
                    raise
                reason = _reason(error, there)
                if _is_final(error):
                    raise Absent(reason) from error
                if attempt == attempts:
                    raise Unreachable(f"cannot be fetched after {attempts} attempts: {reason}") from error
                _wait(_wanted_pause(error, PAUSE * 2 ** (attempt - 1)), beat)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def web_files(scheme: str) -> Any:
    """fsspec's file system for http or https, which gives up on a silent server, and heeds the environment's proxies."""
    import aiohttp
    import fsspec

    # the library's own limit is 5 minutes for a whole file
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    client = {"timeout": timeout, "trust_env": True, "headers": {"Accept-Encoding": "identity"}}
    return fsspec.filesystem(scheme, client_kwargs=client)


class _Meter(Callback):
    """Counts what arrives, between two chunks."""

    def __init__(self, beat: Beat, most: int) -> None:
        super().__init__()
        self._beat, self._most = beat, most
        self._since, self._before = time.monotonic(), 0

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        if size is not None and size > self._most:
            raise Unusable(f"{size} bytes; max_film_bytes is {self._most}")

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self._most:
            raise Unusable(f"more than {self._most} bytes, which is max_film_bytes")
        self._beat(0)
        now = time.monotonic()
        if now - self._since > SILENCE:
            if self.value - self._before < SLOWEST * (now - self._since):
                raise ConnectionError(f"less than {SLOWEST} bytes a second")
            self._since, self._before = now, self.value


def _transfer(there: UPath, path: Path, meter: _Meter) -> None:
    if is_web(there):
        files = web_files(scheme_of(str(there)))
        files.get_file(str(there), str(path), callback=meter, chunk_size=CHUNK)  # itself complains of a short answer
        return
    with there.fs.open(there.path, "rb", block_size=CHUNK) as source, path.open("wb") as file:
        size = getattr(source, "size", None)
        meter.set_size(size)
        while chunk := source.read(CHUNK):
            file.write(chunk)
            meter.relative_update(len(chunk))
    if size is not None and meter.value < size:
        raise OSError(None, f"{meter.value} of {size} bytes came")


def _is_final(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status < 500 and status not in PASSING
    # ValueError, and EINVAL from S3: an address that is none, a certificate of somebody else
    if isinstance(error, (*FINAL, ValueError)) or getattr(error, "errno", None) == errno.EINVAL:
        return True
    return type(error).__name__ in REDIRECTED


def _reason(error: Exception, there: UPath) -> str:
    status = _status(error)
    if status is not None:
        known = status in set(http.HTTPStatus)
        return f"HTTP {status} {http.HTTPStatus(status).phrase}" if known else f"HTTP {status}"
    if isinstance(error, FileNotFoundError):
        return "HTTP 404 Not Found" if is_web(there) else "no such file in the store"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, TimeoutError):
        return f"no answer for {SILENCE:g} s"
    if type(error).__name__ in REDIRECTED:
        return "its redirects lead to no file"
    text = line(error).replace(str(there), spelt(there))  # which may hold credentials
    return text[:200]


def _status(error: Exception) -> int | None:
    """The HTTP status that a web server refused with."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) and status >= 300 else None


def _wanted_pause(error: Exception, pause: float) -> float:
    """Seconds to wait: as long as the server asks for, within reason."""
    headers = getattr(error, "headers", None) or {}
    asked = headers.get("Retry-After", "") if hasattr(headers, "get") else ""
    return max(pause, min(float(asked), LONGEST_PAUSE)) if str(asked).isdecimal() else pause


def _wait(seconds: float, beat: Beat) -> None:
    end = time.monotonic() + seconds
    beat(0)
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
        beat(0)
