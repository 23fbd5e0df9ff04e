"""A repository in a folder of this machine, read as if a server stood before it."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter


class FolderAdapter(BaseAdapter):
    """`file://` for requests: a repository in a folder of this machine, with ranges."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The file that the address names, from the start of the range on; 404 when there is none."""
        path = Path(url2pathname(urlsplit(request.url or "").path))
        body: Any = None
        headers: dict[str, str] = {}
        status = 404
        if path.is_file():
            body, status, size = path.open("rb"), 200, path.stat().st_size
            wanted = request.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
            start = int(wanted) if wanted.isdecimal() else 0
            if start:
                status = 206 if start < size else 416
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
                body.seek(start)
            headers["Content-Length"] = str(max(size - start, 0))
        raw = urllib3.HTTPResponse(body or b"", headers=headers, status=status, preload_content=False)
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        """There is nothing to close."""
