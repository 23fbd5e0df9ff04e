"""A ZenML orchestrator that has schedules and only takes notes, and an alerter that writes a file."""

import json
import os
from pathlib import Path
from typing import Any

from zenml.alerter.base_alerter import BaseAlerter, BaseAlerterFlavor
from zenml.enums import ExecutionMode
from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor


def notes() -> Path:
    return Path(os.environ["RECORDING_NOTES"])


def note(**what: Any) -> None:
    with open(notes(), "a") as file:
        file.write(json.dumps(what) + "\n")


class RecordingConfig(BaseOrchestratorConfig):
    @property
    def is_schedulable(self) -> bool:
        return True


class Recording(BaseOrchestrator):
    """As the one for Kubernetes: it can create, change and delete a schedule."""

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        return [ExecutionMode.FAIL_FAST]

    def get_orchestrator_run_id(self) -> str:
        return "none"

    def submit_pipeline(self, snapshot: Any, stack: Any, *args: Any, **kwargs: Any) -> None:
        if "RECORDING_FAILS" in os.environ:
            raise ConnectionError("no cluster answers")
        note(
            submitted=snapshot.pipeline_configuration.name,
            cron=snapshot.schedule.cron_expression,
            catchup=snapshot.schedule.catchup,
            steps=sorted(snapshot.step_configurations),
        )

    def update_schedule(self, schedule: Any, update: Any) -> None:
        note(updated=schedule.name, active=update.active)

    def delete_schedule(self, schedule: Any) -> None:
        note(deleted=schedule.name)


class RecordingFlavor(BaseOrchestratorFlavor):
    @property
    def name(self) -> str:
        return "recording"

    @property
    def config_class(self) -> type[RecordingConfig]:
        return RecordingConfig

    @property
    def implementation_class(self) -> type[Recording]:
        return Recording


class Unchanging(BaseOrchestrator):
    """As the one for Kubeflow: what it has created it neither changes nor deletes."""

    supported_execution_modes = Recording.supported_execution_modes
    get_orchestrator_run_id = Recording.get_orchestrator_run_id
    submit_pipeline = Recording.submit_pipeline


class UnchangingFlavor(RecordingFlavor):
    @property
    def name(self) -> str:
        return "unchanging"

    @property
    def implementation_class(self) -> type[Any]:
        return Unchanging


class FileAlerter(BaseAlerter):
    def post(self, message: str, params: Any = None) -> bool:
        note(alert=message)
        return True


class FileAlerterFlavor(BaseAlerterFlavor):
    @property
    def name(self) -> str:
        return "file"

    @property
    def implementation_class(self) -> type[FileAlerter]:
        return FileAlerter
