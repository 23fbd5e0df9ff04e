"""How bytes come from the repository: bounded metadata, and files that a later sync goes on with.

Nothing here is trusted: metadata is verified by the updater, files by the length and sha256 that were signed. What is
decided here is only when to give up, and how to call it.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface
from urllib3.util import Retry

from pocketloop.contracts.files import sha256_file
from pocketloop.device.errors import (
    CaptivePortal,
    ConnectionCut,
    EndlessData,
    LowDisk,
    NotPublished,
    ServerFault,
    TargetTampered,
    TargetTruncated,
    TimedOut,
    Unreachable,
    storage_fault,
)
from pocketloop.device.folders import FolderAdapter

_PIECE = 1 << 16
_DIGEST = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")
_GRACE_SECONDS = 30
_SLOWEST = 1024
"""Bytes a second below which, after the grace time, a transfer counts as standing still."""


class Fetcher(FetcherInterface):
    """GET requests over one `requests.Session`: connections are kept, only failed connections are tried again.

    Args:
        base_url: where the repository lies: `http(s)://...`, or `file:///...` for a folder of this machine.
        connect_s, read_s: seconds to wait for a connection, and for the next bytes.

    Attributes:
        requests: requests sent so far.
        received: bytes of bodies read so far, as decoded.
    """

    def __init__(self, base_url: str, connect_s: float = 5, read_s: float = 20) -> None:
        self.requests = 0
        self.received = 0
        self._timeout = (connect_s, read_s)
        self._session = requests.Session()
        self._session.max_redirects = 5
        # The environment is asked once, not for each request; passwords in ~/.netrc are nobody's here.
        self._session.trust_env = False
        self._session.proxies = get_environ_proxies(base_url)
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        if base_url.startswith("file:"):  # only then: a server must not be able to redirect into our files
            self._session.mount("file://", FolderAdapter())
        retry = Retry(total=3, connect=2, read=False, status=0, other=0, backoff_factor=0.2)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_connections=1, pool_maxsize=1))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Metadata of at most `max_length` bytes.

        Raises:
            DownloadHTTPError: 403 and 404, which mean "no newer root" to the updater.
            DeviceError: a NetworkFault or EndlessData.
        """
        data = bytearray()
        for piece in self._fetch(url):
            data += piece
            if len(data) > max_length:
                raise EndlessData(f"{_name(url)} has more than the {max_length} bytes that it may have")
        return bytes(data)

    def small_target(self, url: str, length: int, sha256: str) -> bytes:
        """A signed file that is small enough for memory.

        Raises:
            NetworkFault, EndlessData, TargetTruncated, TargetTampered: the answer is not the signed file.
        """
        try:
            data = self.download_bytes(url, length)
        except DownloadHTTPError:
            raise _not_published(url) from None
        if len(data) < length:
            raise TargetTruncated(f"{_name(url)}: {len(data)} bytes came where {length} were signed")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _tampered(url)
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        with self._get(url, {}) as response:
            if response.status_code in {403, 404}:
                raise DownloadHTTPError(f"{_name(url)}: status {response.status_code}", response.status_code)
            _expect(response, url, {200})
            first = True
            for piece in self._pieces(response, url):
                if first and piece.lstrip()[:1] == b"<":
                    raise _portal(url)
                first = False
                yield piece

    def download_target(self, url: str, length: int, sha256: str, path: Path, reserve: int = 0) -> None:
        """Fetch a signed file to `path`, going on with `path`.part where one lies there.

        Args:
            length, sha256: as signed; never more bytes than `length` are written.
            reserve: bytes that must stay free on the disk.

        Raises:
            NetworkFault: what arrived stays in the `.part` file.
            LowDisk: before the download, or while writing.
            EndlessData, TargetTruncated, TargetTampered: the answer is not the signed file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with _writing(part):
            resumed = self._fill(url, length, part, reserve)
            if sha256_file(part) != sha256 and resumed:  # the beginning may be of another file: once more, as a whole
                _discard(part)
                self._fill(url, length, part, reserve)
            if sha256_file(part) != sha256:
                _discard(part)
                raise _tampered(url)
            part.replace(path)
            _discard(part)

    def _fill(self, url: str, length: int, part: Path, reserve: int) -> bool:
        """Bring `part` to `length` bytes; says whether its beginning was there before."""
        have = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
        if have > length:
            _discard(part)
            have = 0
        if have == length and part.exists():
            return True
        free = shutil.disk_usage(part.parent).free
        if free < length - have + reserve:
            raise LowDisk(
                f"{_name(url)} needs {_mb(length - have)} MB and {_mb(reserve)} MB must stay free; {_mb(free)} MB are: "
                "free some space"
            )
        etag = _etag_path(part)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if etag.is_file():
                headers["If-Range"] = etag.read_text(encoding="utf-8")
        with self._get(url, headers) as response:
            if response.status_code == 404:
                raise _not_published(url)
            if response.status_code != 416:
                _expect(response, url, {200, 206} if have else {200})
                continues = response.headers.get("Content-Range") == f"bytes {have}-{length - 1}/{length}"
                if response.status_code == 200 or continues:
                    have = have if response.status_code == 206 else 0
                    _check_size(response, url, length - have)
                    _remember_etag(etag, response.headers.get("ETag", ""))
                    self._write(response, url, part, have, length)
                    return have > 0
        _discard(part)  # the server's idea of the range is not ours: from the beginning
        return self._fill(url, length, part, reserve)

    def _write(self, response: requests.Response, url: str, part: Path, have: int, length: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_APPEND if have else os.O_TRUNC)
        with open(os.open(part, flags, 0o644), "wb") as out:
            for piece in self._pieces(response, url):
                have += len(piece)
                if have > length:
                    _discard(part)
                    raise EndlessData(f"{_name(url)} goes on after the {length} bytes that were signed")
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        if have < length:
            raise ConnectionCut(f"{_name(url)}: the connection ended after {have} of {length} bytes; sync again")

    @contextmanager
    def _get(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        self.requests += 1
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=self._timeout)
        except requests.Timeout:
            raise TimedOut(f"{_host(url)} did not answer within {self._timeout[1]:g} s; sync again later") from None
        except requests.exceptions.SSLError:
            raise Unreachable(
                f"{_host(url)} does not show a certificate of its own: a network that wants a login, or a wrong clock"
            ) from None
        except (requests.RequestException, OSError) as error:
            raise Unreachable(f"{_host(url)} cannot be reached ({type(error).__name__}); sync again later") from None
        try:
            yield response
        finally:
            response.close()

    def _pieces(self, response: requests.Response, url: str) -> Iterator[bytes]:
        """The body as it arrives."""
        start, received = time.monotonic(), 0
        try:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                received += len(piece)
                self.received += len(piece)
                yield piece
                if time.monotonic() - start > _GRACE_SECONDS + received / _SLOWEST:
                    raise TimedOut(f"{_name(url)}: {received} bytes in {_GRACE_SECONDS} s; sync again later")
        except urllib3.exceptions.ReadTimeoutError:
            raise TimedOut(f"{_name(url)}: no byte for {self._timeout[1]:g} s; sync again later") from None
        except urllib3.exceptions.HTTPError:
            raise ConnectionCut(f"{_name(url)}: the connection ended after {received} bytes; sync again") from None


def _expect(response: requests.Response, url: str, statuses: set[int]) -> None:
    if response.status_code == 511:
        raise _portal(url)
    if response.status_code not in statuses:
        raise ServerFault(f"{_name(url)}: the server answered with status {response.status_code}; sync again later")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _portal(url)


def _check_size(response: requests.Response, url: str, expected: int) -> None:
    """Refuse by the announced size, where the body travels as it is."""
    announced = response.headers.get("Content-Length", "")
    if not announced.isdecimal() or response.headers.get("Content-Encoding", "identity") != "identity":
        return
    if int(announced) > expected:
        raise EndlessData(f"{_name(url)}: the server offers {announced} bytes where {expected} were signed")
    if int(announced) < expected:
        raise TargetTruncated(f"{_name(url)}: the server offers {announced} bytes where {expected} were signed")


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fault = storage_fault(error, part)
        if isinstance(fault, LowDisk):  # the device needs the space more than the next sync needs the beginning
            _discard(part)
        raise fault from None


def _remember_etag(path: Path, etag: str) -> None:
    path.unlink(missing_ok=True)
    if etag.startswith('"'):  # If-Range takes strong validators only
        path.write_text(etag, encoding="utf-8")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_path(part).unlink(missing_ok=True)


def _etag_path(part: Path) -> Path:
    return part.with_suffix(".etag")


def _portal(url: str) -> CaptivePortal:
    return CaptivePortal(
        f"{_host(url)}: a web page came instead of {_name(url)}: log in to this network, then sync again"
    )


def _not_published(url: str) -> NotPublished:
    return NotPublished(f"{_name(url)} is signed but not on the server; it may still be on its way")


def _tampered(url: str) -> TargetTampered:
    return TargetTampered(f"{_name(url)}: the bytes are not those that were signed")


def _host(url: str) -> str:
    return urlsplit(url).netloc or "the repository"


def _name(url: str) -> str:
    """The end of an address for people: digests cut to twelve digits."""
    return _DIGEST.sub(r"\1", "/".join(urlsplit(url).path.split("/")[-2:]))


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f}"
