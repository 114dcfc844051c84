"""What an entry of a list names, how a data set spells it, and what a stranger's list must not name."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from upath import UPath

from data_tools.places import Place, is_local, line, place

WEB = frozenset({"http", "https"})
# Schemes that an entry may have: of these the package knows that they lead to another machine (memory://: for tests).
SCHEMES = WEB | {"abfs", "abfss", "az", "ftp", "gcs", "gs", "hf", "memory", "oci", "oss", "s3", "s3a", "sftp"}
ON_DISK = frozenset({"file", "local"})
LONGEST = 1_000  # characters of a name
LONGEST_URL = 8_000  # of a URL with its query, which may hold a signature

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"[^/?#]*")


class Refused(ValueError):  # noqa: N818  # a verdict on an entry, no failure of ours
    """An entry that is not taken. Its text is the reason."""


def resolve(entry: str, beside: Place) -> tuple[str, Place]:
    """(the data set's name, the place) of an entry of a list, or of another file that names films.

    Relative entries start at the file's own folder and must stay in it. A file on this machine may name anything by an
    absolute path; a file from elsewhere, which may be a stranger's, may not name files of this machine.

    Args:
        entry: a path, or a URL with one of `SCHEMES` or file://.
        beside: the file that it stands in.
    Raises:
        Refused: it must not be named, or is no name; the text says what to do.
    """
    if not entry:
        raise Refused("a row without a path")
    if "\0" in entry:
        raise Refused("a NUL byte in its name")
    name, scheme = spelt(entry), scheme_of(entry)
    if len(name) > LONGEST or len(entry) > LONGEST_URL:
        raise Refused(f"a name of more than {LONGEST:,} characters")
    if scheme and scheme not in ON_DISK:
        return name, _remote(scheme, entry)
    if name.startswith("/"):
        if not is_local(beside):
            raise Refused("a list that is not on this machine may not name its files; give a URL")
        return name, Path(str(place(entry)))
    if name == ".." or name.startswith("../"):
        raise Refused("a relative path out of the folder of the file that names it; give an absolute path")
    if isinstance(beside, Path):
        return name, beside.parent / posixpath.normpath(entry)
    scheme, _, rest = str(beside).partition("://")
    if scheme in WEB:
        rest = rest.partition("#")[0].partition("?")[0]
        name = spelt(_unsigned(entry))
    else:
        entry = posixpath.normpath(entry)
    return name, _remote(scheme, f"{scheme}://{rest.rpartition('/')[0] or rest}/{entry}")


def spelt(name: str | Place) -> str:
    """A path or URL as the data set, labels.csv and boxes.csv spell it: forward slashes, no `./`, no `a/../`.

    Of a URL, neither credentials nor the query stay; URLs that differ in the query alone end differently all the same.
    """
    text = str(name)
    scheme = scheme_of(text)
    if scheme in ON_DISK:
        text = str(place(text))
    elif scheme in WEB:
        rest = text[len(scheme) + 3 :]
        host = _HOST.match(rest)
        assert host is not None, "it matches every text"
        return f"{scheme}://{host[0].rpartition('@')[2].lower()}{_unsigned(rest[host.end() :])}"
    elif scheme:
        name, slash, path = text[len(scheme) + 3 :].partition("/")
        who, _, bucket = name.rpartition("@")
        return f"{scheme}://{bucket if ':' in who else name}{slash}{path}".rstrip("/")
    return posixpath.normpath(text.replace("\\", "/"))


def printable(name: str | os.PathLike[str]) -> str:
    """A name as text that UTF-8 can hold: odd bytes of a file name become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def scheme_of(name: str) -> str:
    """The scheme of a URL in lower case; empty for a path."""
    found = _SCHEME.match(name)
    return found[1].lower() if found else ""


def is_web(there: Place) -> bool:
    """Is it on a web server: files can be read there, folders cannot be listed."""
    return isinstance(there, UPath) and there.protocol in WEB


def name_of(there: Place) -> str:
    """The last part of its name, without a URL's query; empty for a web server or a bucket itself."""
    return _parts(there)[-1] if is_web(there) else there.name


def folder_of(there: Place) -> str:
    """The name of the folder that it lies in."""
    return ["", *_parts(there)][-2] if is_web(there) else there.parent.name


def suffix_of(name: str | Place) -> str:
    """The ending of a name (or of an entry of a list) in lower case, with the dot; a URL's query is no part of its name."""
    text = name if isinstance(name, str) else name_of(name)
    if scheme_of(text) in WEB:
        text = text.partition("#")[0].partition("?")[0].partition("://")[2]
        text = text if "/" in text else ""
    return posixpath.splitext(text)[1].lower()


def _parts(there: Place) -> list[str]:
    """The parts of a URL's path."""
    return str(there).partition("#")[0].partition("?")[0].partition("://")[2].partition("/")[2].split("/")


def _unsigned(path: str) -> str:
    """The path of a URL with a short hash in place of its query, which may be a signature."""
    path, _, query = path.partition("#")[0].partition("?")
    return f"{path}~{hashlib.sha256(query.encode()).hexdigest()[:8]}" if query else path


def _remote(scheme: str, url: str) -> UPath:
    rest = url[len(scheme) + 3 :]
    host = rest.partition("/")[0]
    if scheme not in SCHEMES:
        raise Refused(f"{scheme}:// is no kind of address for a list; give one of {', '.join(sorted(SCHEMES))}")
    if "::" in rest:  # to fsspec, a chain of storages, which may end on this machine
        raise Refused("'::' in an address")
    if not host and scheme != "memory":
        raise Refused("an address without a host or bucket")
    if scheme not in WEB and ":" in host.rpartition("@")[0]:
        raise Refused("credentials in an address; set them in the environment")
    try:
        make = _maker(scheme)
    except ValueError as error:
        raise Refused(f"{scheme}:// cannot be read here: {line(error).removeprefix(f'{scheme}://x/x: ')}") from None
    try:
        return make(f"{scheme}://{rest}")
    except ValueError:
        raise Refused("no valid address") from None


@cache
def _maker(scheme: str) -> Callable[[str], UPath]:
    """What makes a place of a URL; asked once for each scheme, as lists hold hundreds of thousands of URLs."""
    there: Any = place(f"{scheme}://x/x")
    kind: Any = type(there)
    return kind if scheme in WEB else partial(kind, **there.storage_options)
