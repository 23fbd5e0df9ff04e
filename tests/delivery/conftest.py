"""A repository with published adapters, and an S3 server."""

import shutil
from pathlib import Path

import pytest
from object_store import s3, s3_server
from tuf_repository import CONFIG, served

from pocketloop.contracts.home import Home
from pocketloop.delivery.repository import Repository

__all__ = ["s3", "s3_server"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    served(folder)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository.open(CONFIG, Home(folder / "home"))
