"""A download is whole or leaves nothing; what may pass is tried again, what will not is told at once."""

from __future__ import annotations

import errno
import socket
import ssl
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from data_tools.places import Place, place, write_atomic
from data_tools.sources import download as module
from data_tools.sources.download import Absent, Unreachable, download
from data_tools.videos import Unusable
from tests.data_tools.sources.web import Answer, Web, send, status

FILM = bytes(range(256)) * 2000


class Beats:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, amount: int) -> None:
        assert amount == 0
        self.count += 1


def get(there: Place | str, folder: Path, attempts: int = 3, max_bytes: int = 10**7, beat: Any = None) -> bytes:
    path = folder / "got"
    download(place(there) if isinstance(there, str) else there, path, beat or Beats(), attempts, max_bytes)  # type: ignore[arg-type]
    return path.read_bytes()


def cut(request: BaseHTTPRequestHandler) -> None:
    send(FILM[:1000], length=len(FILM))(request)
    request.close_connection = True


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end
    request.connection.close()


def test_a_file_comes_whole_with_signs_of_life(web: Web, tmp_path: Path) -> None:
    web.files["/a%20b.mp4"] = FILM
    beat = Beats()
    assert get(f"{web.url}/a b.mp4?x=1&y=/", tmp_path, beat=beat) == FILM
    assert web.asked == ["GET /a%20b.mp4?x=1&y=/"], "one request, no question before"
    assert beat.count > 1


@pytest.mark.parametrize(
    "failure",
    [status(503), status(429), status(429, Retry_After="0"), status(408), cut, hang_up],
    ids=["503", "429", "429-retry-after", "408", "cut", "hang-up"],
)
def test_what_may_pass_is_tried_again(failure: Answer, web: Web, tmp_path: Path) -> None:
    web.answers["/a.mp4"] = [failure, failure, send(FILM)]
    assert get(f"{web.url}/a.mp4", tmp_path) == FILM
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (status(503), "HTTP 503 Service Unavailable"),
        (status(599), "HTTP 599"),
        (cut, "payload is not completed"),
        (hang_up, "Connection reset|Server disconnected"),
    ],
)
def test_what_does_not_pass_is_given_up(failure: Answer, reason: str, web: Web, tmp_path: Path) -> None:
    web.answers["/a.mp4"] = [failure]
    with pytest.raises(Unreachable, match=f"cannot be fetched after 3 attempts: .*({reason})") as caught:
        get(f"{web.url}/a.mp4?secret=1", tmp_path)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(web.asked) >= 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "reason"), [(404, "HTTP 404 Not Found"), (403, "HTTP 403 Forbidden"), (410, "HTTP 410 Gone"), (400, "HTTP 400 Bad Request")]
)  # fmt: skip
def test_what_will_not_pass_is_told_at_once(code: int, reason: str, web: Web, tmp_path: Path) -> None:
    web.answers["/a.mp4"] = [status(code)]
    with pytest.raises(Absent, match=f"^{reason}$"):
        get(f"{web.url}/a.mp4", tmp_path)
    assert len(web.asked) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("late", [False, True])
def test_a_silent_server_is_left(late: bool, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)

    def hang(request: BaseHTTPRequestHandler) -> None:
        if late:
            send(FILM[:1000], length=len(FILM))(request)
            request.wfile.flush()
        web.let_go.wait(30)

    web.answers["/a.mp4"] = [hang]
    with pytest.raises(Unreachable, match=r"after 2 attempts: no answer for 0\.2 s"):
        get(f"{web.url}/a.mp4", tmp_path, attempts=2)
    assert not list(tmp_path.iterdir())


def test_a_server_that_drips_is_left(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 5.0)

    def drip(request: BaseHTTPRequestHandler) -> None:
        send(b"", length=len(FILM))(request)
        while not web.let_go.wait(0.05):
            request.wfile.write(b"x")

    web.answers["/a.mp4"] = [drip]
    with pytest.raises(Unreachable, match="less than 1000 bytes a second"):
        get(f"{web.url}/a.mp4", tmp_path, attempts=1)


def test_a_server_that_never_ends_is_left(web: Web, tmp_path: Path) -> None:
    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not web.let_go.is_set():
            request.wfile.write(FILM)

    web.answers["/a.mp4"] = [flood]
    with pytest.raises(Unusable, match="more than 1000000 bytes, which is max_film_bytes"):
        get(f"{web.url}/a.mp4", tmp_path, max_bytes=10**6)
    web.files["/b.mp4"] = FILM
    with pytest.raises(Unusable, match="512000 bytes; max_film_bytes is 1000"):
        get(f"{web.url}/b.mp4", tmp_path, max_bytes=1000)
    assert len(web.asked) == 2, "no second attempt"
    assert not list(tmp_path.iterdir())


def test_an_unknown_host_may_be_known_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match="after 3 attempts: Name or service not known"):
        get("http://nowhere.invalid/a.mp4", tmp_path)


def test_what_is_no_url_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="Port out of range"):
        get("http://127.0.0.1:99999/a.mp4", tmp_path)


def test_a_server_of_another_name_is_told_at_once(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Files:
        def get_file(self, *_: Any, **__: Any) -> None:
            import aiohttp

            key = aiohttp.client_reqrep.ConnectionKey("host", 443, True, True, None, None, None)
            raise aiohttp.ClientConnectorCertificateError(key, ssl.SSLCertVerificationError("certificate has expired"))

    monkeypatch.setattr(module, "web_files", lambda _: Files())
    with pytest.raises(Absent, match="certificate has expired"):
        get("https://host/a.mp4", tmp_path)


def test_a_redirect_leads_to_the_file_and_a_loop_to_an_end(web: Web, tmp_path: Path) -> None:
    web.answers["/a.mp4"] = [status(302, Location="/b.mp4")]
    web.files["/b.mp4"] = FILM
    assert get(f"{web.url}/a.mp4", tmp_path) == FILM
    web.answers["/a.mp4"] = [status(302, Location="/a.mp4")]
    with pytest.raises(Absent, match="redirects lead to no file"):
        get(f"{web.url}/a.mp4", tmp_path)
    web.answers["/a.mp4"] = [status(302, Location="file:///etc/passwd")]
    with pytest.raises(Absent, match="redirects lead to no file"):
        get(f"{web.url}/a.mp4", tmp_path)


def test_what_is_wrong_here_is_no_verdict_on_the_film(
    web: Web, memory: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/a.mp4"] = FILM
    with pytest.raises(FileNotFoundError):
        get(f"{web.url}/a.mp4", tmp_path / "gone")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_transfer", full)
    with pytest.raises(OSError, match="No space left"):
        get(f"{web.url}/a.mp4", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_verdict_in_a_sign_of_life_ends_it(web: Web, tmp_path: Path) -> None:
    """As when a film's time is up."""
    web.files["/a.mp4"] = FILM

    def stop(_: int) -> None:
        raise Unusable("time is up")

    with pytest.raises(Unusable, match="time is up"):
        get(f"{web.url}/a.mp4", tmp_path, beat=stop)
    assert len(web.asked) == 1


def test_s3(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 100_000)
    odd = place(bucket) / "a b" / "-c#%20?é.mp4"
    write_atomic(odd, FILM)
    beat = Beats()
    assert get(odd, tmp_path, beat=beat) == FILM
    assert beat.count >= 5
    with pytest.raises(Unusable, match="512000 bytes; max_film_bytes is 1000"):
        get(odd, tmp_path, max_bytes=1000)
    (tmp_path / "got").unlink(missing_ok=True)
    for there in (f"{bucket}/gone.mp4", "s3://no-such-bucket/a.mp4"):
        with pytest.raises(Absent, match="no such file in the store"):
            get(there, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_store_that_fails_for_a_moment(memory: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(memory / "a.mp4", FILM)
    failures = [ConnectionResetError("reset\nby peer"), TimeoutError()]
    transfer = module._transfer

    def flaky(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        transfer(*arguments)

    monkeypatch.setattr(module, "_transfer", flaky)
    assert get(memory / "a.mp4", tmp_path) == FILM
    failures[:] = [ConnectionResetError("reset\nby peer")] * 3
    with pytest.raises(Unreachable, match="cannot be fetched after 3 attempts: reset by peer"):
        get(memory / "a.mp4", tmp_path)


def test_a_server_may_ask_for_patience(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module, "_wait", lambda seconds, beat: waited.append(seconds))
    answers = [status(429, Retry_After=value) for value in ("7", "100000", "Fri, 31 Dec 1999 23:59:59 GMT")]
    web.answers["/a.mp4"] = [*answers, send(FILM)]
    get(f"{web.url}/a.mp4", tmp_path, attempts=4)
    assert waited == [7, module.LONGEST_PAUSE, pytest.approx(0.004)]
