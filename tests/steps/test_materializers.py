from pathlib import Path

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import Folder

pytestmark = pytest.mark.slow


@pytest.fixture
def stored(zenml_home: Path, tmp_path: Path):
    from zenml.client import Client

    from steps.materializers import FolderMaterializer

    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "data.bin").write_bytes(b"\0data")
    (folder / "report.html").write_text("<p>")
    uri = tmp_path / "artifact"
    materializer = FolderMaterializer(str(uri), Client().active_stack.artifact_store)
    materializer.save(Folder.of(folder))
    return materializer, folder


def test_a_folder_comes_back_as_it_was_and_without_a_copy(stored, tmp_path: Path) -> None:
    materializer, folder = stored
    loaded = materializer.load(Folder)
    assert loaded.digest == Folder.of(folder).digest == materializer.compute_content_hash(loaded)
    assert (loaded / "deep/data.bin").read_bytes() == b"\0data"
    assert loaded.path.is_relative_to(tmp_path / "artifact")


def test_a_changed_artifact_is_refused(stored, tmp_path: Path) -> None:
    materializer, _ = stored
    (tmp_path / "artifact/files/report.html").write_text("<script>")
    with pytest.raises(DataError, match="does not match its digest"):
        materializer.load(Folder)


def test_a_report_can_be_opened_from_zenml(stored) -> None:
    materializer, folder = stored
    views = materializer.save_visualizations(Folder.of(folder))
    assert [Path(uri).name for uri in views] == ["report.html"]
