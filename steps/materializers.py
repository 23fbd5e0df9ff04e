"""How a `Folder` is stored by ZenML: its files as they are, and its digest as the content hash.

The content hash lets ZenML reuse a later stage's result whenever an earlier stage, run again, gives the same files.
"""

from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import Folder, sha256_tree

_VIEWS = {".html": VisualizationType.HTML, ".md": VisualizationType.MARKDOWN, ".png": VisualizationType.IMAGE}


class FolderMaterializer(BaseMaterializer):
    """Copies a folder's files into the artifact store; a local store is read in place, without a copy."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Folder,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: Folder) -> None:
        """Write every file, then the digest last: without it the artifact counts as incomplete."""
        for path in sorted(p for p in data.path.rglob("*") if p.is_file()):
            target = f"{self.uri}/files/{path.relative_to(data.path).as_posix()}"
            fileio.makedirs(target.rsplit("/", 1)[0])
            fileio.copy(str(path), target)
        with fileio.open(f"{self.uri}/digest", "w") as handle:
            handle.write(data.digest)

    def load(self, data_type: type[Any]) -> Folder:
        """Give the stored folder, fetched first when the store is remote; refuse one that was changed."""
        with fileio.open(f"{self.uri}/digest", "r") as handle:
            digest = handle.read().strip()
        stored = Path(f"{self.uri}/files")
        if not stored.is_dir():
            with self.get_temporary_directory(delete_at_exit=False) as directory:
                stored = Path(directory)
                _fetch(f"{self.uri}/files", stored)
        if sha256_tree(stored) != digest:
            raise DataError(f"artifact {self.uri} does not match its digest: it was changed or is incomplete")
        return Folder(path=stored, digest=digest)

    def compute_content_hash(self, data: Folder) -> str:
        """The folder's digest."""
        return data.digest

    def extract_metadata(self, data: Folder) -> dict[str, Any]:
        """Digest, number of files and bytes."""
        sizes = [p.stat().st_size for p in data.path.rglob("*") if p.is_file()]
        return {"digest": data.digest, "files": len(sizes), "bytes": sum(sizes)}

    def save_visualizations(self, data: Folder) -> dict[str, VisualizationType]:
        """Reports (HTML, Markdown, PNG at the folder's top) can be opened from ZenML."""
        return {f"{self.uri}/files/{p.name}": _VIEWS[p.suffix] for p in data.path.iterdir() if p.suffix in _VIEWS}


def _fetch(source: str, target: Path) -> None:
    for found, _, names in fileio.walk(source):
        for name in names:
            inside = f"{found}/{name}"[len(source) :].lstrip("/")
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            fileio.copy(f"{found}/{name}", str(target / inside))
