"""Reading the bodies of posts: no more than is allowed, plain or compressed, and never all of a bomb."""

import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request

_GZIP = 31  # zlib's word for a gzip header and the largest window
_MEMBERS = 100
"""Most gzip streams in one body: each costs a little, however short it is."""


class TooLarge(Exception):
    """More than one post may hold."""


class Damaged(Exception):
    """Compressed data that is cut off, or is none."""


async def body_chunks(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it arrives; of one that is too large, the rest is not read.

    Raises:
        TooLarge: it is longer than `most` bytes, or says so.
        ClientDisconnect: the phone went away.
    """
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdigit() else 0
    if size <= most:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                break
            yield chunk
    if size > most:
        raise TooLarge(f"more than {most} bytes")


async def gunzipped(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """What gzip data holds, as it arrives, and at most `most` bytes of it.

    Raises:
        TooLarge: it holds more.
        Damaged: it is no gzip data, or cut off.
    """
    size, members = 0, 1
    stream = zlib.decompressobj(_GZIP)
    async for chunk in chunks:
        data = chunk
        while data:
            if stream.eof:
                stream, members = zlib.decompressobj(_GZIP), members + 1
            if members > _MEMBERS:
                raise TooLarge(f"more than {_MEMBERS} gzip streams")
            try:
                piece = stream.decompress(data, most - size + 1)
            except zlib.error:
                raise Damaged("the gzip data is damaged") from None
            size += len(piece)
            if size > most:
                raise TooLarge(f"more than {most} bytes when decompressed")
            yield piece
            data = stream.unused_data
    if not stream.eof:
        raise Damaged("the gzip data ends early")
