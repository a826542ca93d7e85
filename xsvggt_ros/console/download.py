"""A file from the web: resumed where it stopped, and checked."""

from collections.abc import Callable
from dataclasses import dataclass
import hashlib
from http.client import HTTPException
import os
from pathlib import Path
import re
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import build_opener, HTTPRedirectHandler, Request

from xsvggt_ros.console.errors import ToolError

ATTEMPTS = 6          # without a single byte in between
TIMEOUT = 30.0        # seconds without an answer
_PIECE = 2 ** 20      # bytes
_SHA256 = re.compile(r'[0-9a-f]{64}')


class DownloadError(ToolError):
    """A file that cannot be had; says why and how else to get it."""


@dataclass(frozen=True)
class RemoteFile:
    """What the server says of a file; sha256: None if it does not say."""

    url: str
    size: int | None
    sha256: str | None


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but hands no token to another host."""

    def redirect_request(self, request: Request, *rest: Any) -> Request | None:
        """Return the next request."""
        following = super().redirect_request(request, *rest)
        if following is not None and urlsplit(following.full_url).netloc != urlsplit(
                request.full_url).netloc:
            following.headers = {name: value for name, value in following.headers.items()
                                 if name.lower() != 'authorization'}
        return following


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect as it is: its own headers say what the file is."""

    def redirect_request(self, *unused: Any) -> None:
        """Follow nothing."""


def describe(url: str, token: str | None = None) -> RemoteFile:
    """Ask a server about a file; raises DownloadError."""
    request = Request(url, headers=_headers(token), method='HEAD')
    try:
        with build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as answer:
            headers = answer.headers
    except HTTPError as error:
        if not 300 <= error.code < 400:
            raise DownloadError(f'{url}: {_refusal(error.code)}') from error
        headers = error.headers
    except (URLError, OSError, HTTPException, ValueError) as error:
        raise DownloadError(f'{url}: the server cannot be reached: {_told(error)}') from error
    size = headers.get('X-Linked-Size') or headers.get('Content-Length') or ''
    tag = (headers.get('X-Linked-ETag') or headers.get('ETag') or '').strip('"').lower()
    return RemoteFile(url, int(size) if size.isdigit() else None,
                      tag if _SHA256.fullmatch(tag) else None)


def download(
    remote: RemoteFile, target: Path, token: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """
    Write a file, going on with `target`.part where that ends; raises DownloadError.

    The file has its name once all of it is there and its hash is right. progress: is called with
    the bytes so far.
    """
    part = target.with_name(f'{target.name}.part')
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while failures < ATTEMPTS:
        before = part.stat().st_size if part.exists() else 0
        if remote.size is not None and before >= remote.size:
            break
        try:
            if _append(remote, part, token, progress):
                break
            fault = 'the connection ended early'
        except HTTPError as error:
            if error.code in (401, 403, 404):
                raise DownloadError(f'{remote.url}: {_refusal(error.code)}') from error
            fault = _refusal(error.code)
        except (URLError, OSError, HTTPException) as error:
            if getattr(error, 'errno', None) == 28:
                raise DownloadError(f'{part}: {_told(error)}') from error
            fault = _told(error)
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        wait(min(2.0 ** failures, 30.0))
    else:
        raise DownloadError(f'{remote.url}: {fault}; what is here stays in {part}, and the same '
                            'command goes on with it')
    _check(remote, part)
    os.replace(part, target)


def _append(
    remote: RemoteFile, part: Path, token: str | None, progress: Callable[[int], None],
) -> bool:
    """Read on to the end of the answer; return whether that is the end of the file."""
    start = part.stat().st_size if part.exists() else 0
    headers = _headers(token) | ({'Range': f'bytes={start}-'} if start else {})
    with build_opener(_Redirects).open(Request(remote.url, headers=headers),
                                       timeout=TIMEOUT) as answer:
        goes_on = answer.status == 206
        with open(part, 'ab' if goes_on else 'wb') as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                progress(file.tell())
            there = file.tell()
    return remote.size is None or there >= remote.size


def _check(remote: RemoteFile, part: Path) -> None:
    """Raise DownloadError, and remove the file, unless it is what the server said."""
    size = part.stat().st_size
    wrong = ''
    if remote.size is not None and size != remote.size:
        wrong = f'it has {size} bytes instead of {remote.size}'
    elif remote.sha256 is not None:
        with open(part, 'rb') as file:
            digest = hashlib.sha256()
            while piece := file.read(_PIECE):
                digest.update(piece)
        if digest.hexdigest() != remote.sha256:
            wrong = f'its SHA-256 is {digest.hexdigest()} instead of {remote.sha256}'
    if wrong:
        part.unlink()
        raise DownloadError(f'{remote.url}: what came is damaged and was removed: {wrong}; try '
                            'again')


def _headers(token: str | None) -> dict[str, str]:
    return {'User-Agent': 'xsvggt_ros'} | ({'Authorization': f'Bearer {token}'} if token else {})


def _refusal(code: int) -> str:
    words = {401: 'the server wants to know who you are: accept the terms on its page, and set '
                  'HF_TOKEN', 403: 'the server does not let you: accept the terms on its page '
                                   'with the account of your HF_TOKEN',
             404: 'the server has no such file'}
    return words.get(code, f'the server answers with error {code}')


def _told(error: BaseException) -> str:
    reason = getattr(error, 'reason', None) or error
    return ' '.join(str(reason).split()) or type(error).__name__
