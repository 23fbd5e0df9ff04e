"""An S3 server for this room's tests."""

from object_store import s3, s3_server

__all__ = ["s3", "s3_server"]
