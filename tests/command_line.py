"""The command line on a home of its own, driven as a person would."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from fixed_key import fixed_key

from pocketloop.contracts.home import Home

POCKETLOOP = str(Path(sys.executable).with_name("pocketloop"))
SMALL = [
    "--set=data.sources.1.uri=demo://functions?split=train&n=1000",
    "--set=train.stages.0.sft.epochs=2",
    "--set=train.stages.0.sft.batch_size=8",
    "--set=train.checkpoints.every_seconds=1",
    "--set=evaluation.sets.0.limit=80",
    "--set=gates=[]",
    "--set=export.parity.max_score_loss=0.2",
    "--set=safety={behaviour: null}",
    "--set=label.min_kappa=0.3",
]


class Fleet:
    """A home of its own, driven through the command line as a person would."""

    def __init__(self, root: Path) -> None:
        self.home = Home(fixed_key(root))
        self.environment = {
            **os.environ,
            "POCKETLOOP_HOME": str(root),
            "ZENML_CONFIG_PATH": str(root / "zenml"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [POCKETLOOP, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Stop a server and the workers that it started."""
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)

    def run(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=1200)
        assert process.returncode == status, printed
        return printed
