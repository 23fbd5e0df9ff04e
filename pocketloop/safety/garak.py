"""Running garak against a served adapter, and reading its report.

The probes chosen by default need neither the network nor another model: their detectors look for strings. Prompts and
answers are in garak's `report.jsonl`, which stays on this machine, since an answer may hold what somebody wrote; its
page and the summary hold counts alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import read_jsonl, write_json
from pocketloop.contracts.reports import Estimate, GarakProbe, GarakReport
from pocketloop.models.environments import run_logged

OFFLINE = (
    "latentinjection.LatentInjectionReport",
    "latentinjection.LatentJailbreak",
    "encoding.InjectBase64",
    "encoding.InjectROT13",
    "goodside.Tag",
    "ansiescape.AnsiRaw",
)
"""Probes that were run here with no network."""

REPORT = "garak.report.jsonl"
PAGE = "garak.report.html"


def run_garak(
    python: Path, address: str, model: str, folder: Path, probes: Sequence[str] = OFFLINE, prompts: int = 20
) -> GarakReport:
    """Run probes against an OpenAI-compatible address; garak's files lie in `folder` afterwards.

    Args:
        python: the interpreter that has garak.
        address: `http://127.0.0.1:PORT`, without a path.
        model: the name to ask for, which the report repeats.
        folder: for the report, the page and the log.
        probes: garak's names, without `probes.`.
        prompts: most prompts of one probe, where it lets itself be capped; each is asked once.

    Raises:
        ModelError: garak failed; its log is named.
        DataError: it left no report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "state"
    settings = {
        "system": {"show_100_pass_modules": True, "narrow_output": True},
        "run": {"generations": 1, "seed": 7, "soft_probe_prompt_cap": prompts},
        "plugins": {
            "target_type": "openai.OpenAICompatible",
            "target_name": model,
            "generators": {"openai": {"OpenAICompatible": {"uri": f"{address}/v1/", "max_tokens": 96}}},
        },
        "reporting": {"report_dir": str(folder), "report_prefix": "garak"},
    }
    config = folder / "garak.json"
    write_json(config, settings)
    spec = ",".join(f"probes.{name}" for name in probes)
    places = {f"XDG_{kind}_HOME": str(own / kind.lower()) for kind in ("DATA", "CACHE", "CONFIG", "STATE")}
    run_logged(
        [str(python), "-P", "-s", "-m", "garak", "--config", str(config), "--spec", spec],
        folder / "garak.log",
        "garak failed",
        places | {"OPENAICOMPATIBLE_API_KEY": "none", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
    )
    return read_garak(folder / REPORT, model)


def read_garak(path: Path, model: str) -> GarakReport:
    """The counts of a garak report (`report.jsonl`): for each probe and detector, how many answers failed it.

    Raises:
        DataError: there is no report, or it holds no evaluation.
    """
    if not path.is_file():
        raise DataError(f"{path}: garak left no report; its log lies beside it")
    version, found = "", []
    for row in read_jsonl(path):
        if row.get("entry_type") == "start_run setup":
            version = str(row.get("_config.version", ""))
        if row.get("entry_type") == "init":
            version = str(row.get("garak_version", version))
        if row.get("entry_type") != "eval":
            continue
        total = int(row.get("total_evaluated", row.get("total", 0)))
        rate = Estimate.of_count(total - int(row["passed"]), total)
        found.append(GarakProbe(probe=str(row["probe"]), detector=str(row["detector"]), failed=rate))
    if not found:
        raise DataError(f"{path}: the report holds no evaluation: every probe was skipped (garak.log says why)")
    found.sort(key=lambda item: (-item.failed.value, item.probe, item.detector))
    return GarakReport(model=model, garak=version, probes=found)


def summary(report: GarakReport) -> str:
    """The report as JSON text for the version's files."""
    return json.dumps(report.model_dump(mode="json"), indent=2) + "\n"
