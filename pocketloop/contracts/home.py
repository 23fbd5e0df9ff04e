"""Where the project's own state lives: one folder, `.pocketloop/` unless POCKETLOOP_HOME says otherwise."""

import os
from pathlib import Path


def project_root() -> Path:
    """The checkout that holds `configs/`: this package's parent folder."""
    return Path(__file__).resolve().parents[2]


class Home:
    """The folders under POCKETLOOP_HOME, by name. Nothing is created until something is written."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(root or os.environ.get("POCKETLOOP_HOME") or project_root() / ".pocketloop").resolve()

    @property
    def zenml(self) -> Path:
        """ZenML's configuration and local store (ZENML_CONFIG_PATH)."""
        return self.root / "zenml"

    @property
    def mlflow_uri(self) -> str:
        """SQLite address of the MLflow store; MLFLOW_TRACKING_URI overrides it (a shared server)."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps the files of runs and versions."""
        return self.root / "artifacts"

    @property
    def events(self) -> Path:
        """The event log."""
        return self.root / "events"

    @property
    def received(self) -> Path:
        """Events as phones posted them, by day of arrival, unless configs/collector.yaml names another place."""
        return self.root / "received"

    @property
    def releases(self) -> Path:
        """Dataset releases, one folder each, named by digest."""
        return self.root / "releases"

    @property
    def bases(self) -> Path:
        """Prepared bases, one folder each, named by digest."""
        return self.root / "bases"

    @property
    def work(self) -> Path:
        """Scratch folders of running steps; POCKETLOOP_WORK puts them beside the home.

        They are told apart by process id, so they must lie on a disk that only one container sees.
        """
        return Path(os.environ.get("POCKETLOOP_WORK") or self.root / "work")

    @property
    def exports(self) -> Path:
        """Files for phones as `pocketloop export` writes them, one folder for each version."""
        return self.root / "exports"

    @property
    def keys(self) -> Path:
        """Secrets: the folder is 0700, each file 0600."""
        return self.root / "keys"

    @property
    def cache(self) -> Path:
        """Recomputable results, by content digest."""
        return self.root / "cache"

    @property
    def environments(self) -> Path:
        """Python environments of their own (ExecuTorch's, say); POCKETLOOP_ENVIRONMENTS where an image brings them."""
        return Path(os.environ.get("POCKETLOOP_ENVIRONMENTS") or self.cache)

    @property
    def cdn(self) -> Path:
        """The signed repository as static files, unless configs/delivery.yaml names another place."""
        return self.root / "cdn"

    @property
    def staging(self) -> Path:
        """Proposals that wait for reviewers' signatures."""
        return self.root / "staging"

    @property
    def suites(self) -> Path:
        """What public suites found, by suite and model."""
        return self.root / "suites"

    @property
    def telemetry(self) -> Path:
        """What the fleet reported, as Parquet."""
        return self.root / "telemetry"

    @property
    def rollouts(self) -> Path:
        """One record a rollout."""
        return self.root / "rollouts"

    @property
    def device(self) -> Path:
        """State of the reference client."""
        return self.root / "device"

    @property
    def audit(self) -> Path:
        """Who changed what in MLflow, one JSON line each (0600)."""
        return self.root / "audit.jsonl"
