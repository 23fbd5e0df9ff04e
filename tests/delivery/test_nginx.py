"""The sample configuration, run in a real nginx: what is cached for how long, ranges, and honest 404s."""

import gzip
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest
import requests
from free_port import free_port
from until import until

from pocketloop.contracts.home import project_root

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    for name in ("metadata", "targets/stable/functions", "targets/channels/functions"):
        (folder / "cdn" / name).mkdir(parents=True)
    (folder / "cdn/metadata/timestamp.json").write_text('{"now": 1}')
    (folder / "cdn/metadata/timestamp.json.gz").write_bytes(gzip.compress(b'{"now": 0}'))
    (folder / "cdn/metadata/1.root.json").write_text("{}")
    (folder / "cdn/metadata/2.stable.json").write_text('{"targets": [' + "0," * 5000 + "0]}")
    (folder / "cdn/metadata/.3.stable.json.part").write_text("{")
    (folder / "cdn/targets/stable/functions/x.gguf").write_bytes(bytes(range(256)) * 400)
    (folder / "secret.txt").write_text("secret")
    (folder / "cdn/metadata/link.json").symlink_to(folder / "secret.txt")
    port = free_port()
    sample = (project_root() / "deploy" / "nginx.conf").read_text()
    sample = sample.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/srv/pocketloop/cdn", f"{folder}/cdn")
    (folder / "site.conf").write_text(sample)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""  # its workers must get into the test's folder
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body; {temporary} include site.conf; }}\n"
    )
    with subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]) as server:
        try:

            def answers() -> bool:
                assert server.poll() is None, (folder / "error.log").read_text()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            until(answers)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def test_only_the_timestamp_and_what_is_missing_are_asked_for_again(site: str) -> None:
    timestamp = requests.get(f"{site}/metadata/timestamp.json", timeout=60)
    assert timestamp.json() == {"now": 1}
    assert timestamp.headers["Cache-Control"] == "public, max-age=10"
    root = requests.get(f"{site}/metadata/1.root.json", timeout=60)
    assert root.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert root.headers["Content-Type"] == "application/json"
    missing = requests.get(f"{site}/metadata/2.root.json", timeout=60)
    assert (missing.status_code, missing.headers["Cache-Control"]) == (404, "public, max-age=10")


def test_a_cut_download_goes_on_where_it_stopped(site: str) -> None:
    url = f"{site}/targets/stable/functions/x.gguf"
    whole = requests.get(url, timeout=60)
    assert "immutable" in whole.headers["Cache-Control"]
    rest = requests.get(url, headers={"Range": "bytes=70000-", "If-Range": whole.headers["ETag"]}, timeout=60)
    assert rest.status_code == 206
    assert whole.content[:70000] + rest.content == whole.content
    assert "immutable" in rest.headers["Cache-Control"]
    assert requests.get(url, headers={"Range": "bytes=999999-"}, timeout=60).status_code == 416


def test_long_metadata_travels_compressed(site: str) -> None:
    with requests.get(f"{site}/metadata/2.stable.json", stream=True, timeout=60) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(answer.raw.read()) < 1000


@pytest.mark.parametrize(
    "path",
    ["/", "/index.html", "/metadata", "/metadata/", "/metadata/.3.stable.json.part", "/targets/stable/functions/"]
    + ["/metadata/../../secret.txt", "/metadata/%2e%2e/%2e%2e/secret.txt", "/metadata/link.json", "/generate_204"],
)
def test_everything_else_is_not_there(site: str, path: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", site).prepare()
    request.url = site + path
    answer = session.send(request, timeout=60, allow_redirects=False)
    assert answer.status_code in (400, 403, 404)
    assert "immutable" not in answer.headers.get("Cache-Control", "")
    assert "secret" not in answer.text


def test_nothing_can_be_written(site: str) -> None:
    for method in ("PUT", "POST", "DELETE"):
        assert requests.request(method, f"{site}/metadata/timestamp.json", data=b"x", timeout=60).status_code in (
            403,
            405,
        )
