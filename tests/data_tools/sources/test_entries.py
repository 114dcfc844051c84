"""An entry names what it says, under one name; what a hostile list might name is refused with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.places import place
from data_tools.sources.entries import Refused, name_of, printable, resolve, spelt, suffix_of

LOCAL = Path("/lists/films.txt")
WEB = place("https://user:pw@host/lists/films.csv?signature=1")
STORE = place("s3://bucket/lists/films.parquet")


@pytest.mark.parametrize(
    ("entry", "name", "there"),
    [
        ("a.mp4", "a.mp4", "/lists/a.mp4"),
        ("./sub/../a.mp4", "a.mp4", "/lists/a.mp4"),
        ("sub\\a.mp4", "sub/a.mp4", "/lists/sub\\a.mp4"),
        ("/data/a.mp4", "/data/a.mp4", "/data/a.mp4"),
        ("file:///data/a.mp4", "/data/a.mp4", "/data/a.mp4"),
        ("-a 'b' \"c\" #%20\n🎬.mp4", "-a 'b' \"c\" #%20\n🎬.mp4", "/lists/-a 'b' \"c\" #%20\n🎬.mp4"),
        ("simplecache::s3://bucket/a.mp4", "simplecache::s3:/bucket/a.mp4", "/lists/simplecache::s3:/bucket/a.mp4"),
        ("HTTPS://Host/A%20b.mp4", "https://host/A%20b.mp4", "https://Host/A%20b.mp4"),
        ("s3://bucket/a#1?.mp4", "s3://bucket/a#1?.mp4", "s3://bucket/a#1?.mp4"),
    ],
)
def test_entries_of_a_local_list(entry: str, name: str, there: str) -> None:
    found, place_of_it = resolve(entry, LOCAL)
    assert found == name
    assert str(place_of_it) == there


def test_entries_of_a_remote_list() -> None:
    assert resolve("sub/a.mp4", STORE) == ("sub/a.mp4", place("s3://bucket/lists/sub/a.mp4"))
    name, there = resolve("sub/a b.mp4", WEB)
    assert (name, str(there)) == ("sub/a b.mp4", "https://user:pw@host/lists/sub/a b.mp4")
    name, there = resolve("a.mp4?signature=2", WEB)
    assert name.startswith("a.mp4~")
    assert str(there).endswith("/lists/a.mp4?signature=2")
    assert resolve("http://other/a.mp4", STORE)[0] == "http://other/a.mp4"


@pytest.mark.parametrize(
    ("entry", "beside", "reason"),
    [
        ("../x.mp4", LOCAL, "give an absolute path"),
        ("a/../../x.mp4", LOCAL, "give an absolute path"),
        ("..\\x.mp4", LOCAL, "give an absolute path"),
        ("..", LOCAL, "give an absolute path"),
        ("../x.mp4", STORE, "out of the folder"),
        ("a/../../x.mp4", WEB, "out of the folder"),
        ("/etc/passwd", WEB, "may not name its files; give a URL"),
        ("\\etc\\passwd", WEB, "may not name its files; give a URL"),
        ("file:///etc/passwd", STORE, "may not name its files; give a URL"),
        ("local://etc/passwd", STORE, "may not name its files; give a URL"),
        ("zip://x::/etc/passwd", LOCAL, "zip:// is no kind of address for a list; give one of abfs"),
        ("simplecache::file:///etc/passwd", STORE, "'::' in an address"),
        ("https://host/a.mp4::file:///etc/passwd", LOCAL, "'::' in an address"),
        ("https:///x.mp4", LOCAL, "without a host"),
        ("s3://key:secret@bucket/x.mp4", LOCAL, "credentials in an address; set them in the environment"),
        ("a\0b.mp4", LOCAL, "a NUL byte"),
        ("a" * 1001, LOCAL, "more than 1,000 characters"),
        ("https://host/a.mp4?" + "a" * 9000, LOCAL, "more than 1,000 characters"),
        ("", LOCAL, "a row without a path"),
    ],
)
def test_what_is_refused(entry: str, beside: Path, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        resolve(entry, beside)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_names_hold_no_secrets_and_tell_queries_apart() -> None:
    url = "https://user:pw@host:8080/a/b.mp4"
    names = [spelt(url + ending) for ending in ("", "#part", "?signature=1", "?signature=2")]
    assert names[0] == names[1] == "https://host:8080/a/b.mp4"
    assert len(set(names)) == 3
    assert not any(secret in name for name in names for secret in ("pw", "user", "signature", "?"))
    assert [spelt(name) for name in names] == names, "a name in labels.csv is the name in the ledger"
    assert spelt("s3://key:secret@bucket/a") == "s3://bucket/a"
    assert spelt("abfs://container@account/a") == "abfs://container@account/a"


@pytest.mark.parametrize(
    ("url", "name", "suffix"),
    [
        ("https://host/a/B.MP4?x=/y.csv#z.txt", "B.MP4", ".mp4"),
        ("https://host.mp4", "", ""),
        ("s3://bucket/a/b?.csv", "b?.csv", ".csv"),
        ("s3://bucket", "", ""),
        ("/a/b.tar.gz", "b.tar.gz", ".gz"),
    ],
)
def test_the_last_part_of_a_name(url: str, name: str, suffix: str) -> None:
    assert name_of(place(url)) == name
    assert suffix_of(place(url)) == suffix_of(url) == suffix


def test_odd_bytes_become_printable() -> None:
    assert printable(b"\xff.mp4".decode("utf-8", "surrogateescape")) == "\\xff.mp4"
