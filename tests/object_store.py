"""An S3 server for tests, found as any other through the environment."""

from collections.abc import Iterator

import pytest

_BUCKET = "pocketloop-test"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of the server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an empty S3 prefix; fsspec and boto find the server through the environment, as with any S3."""
    import boto3
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket=_BUCKET)
    yield f"s3://{_BUCKET}/prefix"
    for item in client.list_objects_v2(Bucket=_BUCKET).get("Contents", []):
        client.delete_object(Bucket=_BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=_BUCKET)
    s3fs.S3FileSystem.clear_instance_cache()
