"""The bundle: everything that is registered for one candidate, each file with its digest."""

import shutil
from datetime import datetime
from pathlib import Path

from pocketloop.contracts.files import sha256_file, write_json
from pocketloop.contracts.recipe import Catalogue
from pocketloop.contracts.reports import CALIBRATION, ReleaseBundle, bundle_digest
from pocketloop.evaluation.card import adapter_card
from pocketloop.evaluation.findings import Findings
from pocketloop.evaluation.report import write_report


def write_bundle(
    out: Path, findings: Findings, exported: Path, adapter: Path, catalogue: Catalogue | None, created: datetime
) -> ReleaseBundle:
    """Write the bundle of a judged candidate into the folder `out`, which holds the decision's evidence already.

    Files: `adapter.gguf` (or `merged.gguf`), `exported.json` and `probes.json` (from `exported`), `adapter/` (peft,
    safetensors), `recipe.json`, `catalogue.json`, a router's `calibration.json`, the reports as JSON, `report.html`,
    `card.md`, and `bundle.json`, which names the digests of what a phone or a later training run uses. The bundle's
    digest covers those, the dataset, the base, and the gates' decision, which names the evidence's digests; not the
    time.
    """
    recipe = findings.recipe
    shutil.copytree(exported, out, dirs_exist_ok=True)
    shutil.copytree(adapter, out / "adapter", dirs_exist_ok=True)
    write_json(out / "recipe.json", recipe)
    if catalogue is not None:
        write_json(out / "catalogue.json", catalogue.model_dump(exclude_defaults=True))
    if findings.evaluation.calibration is not None:
        write_json(out / CALIBRATION, findings.evaluation.calibration)
    evidence = set(findings.decision.evidence) - {"recipe.json"}
    carried = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    files = {name: sha256_file(path) for name, path in carried.items() if name not in evidence}
    bundle = ReleaseBundle(
        adapter=recipe.adapter,
        task=recipe.task,
        recipe_digest=recipe.digest,
        dataset_digest=findings.release.digest,
        base=findings.base.base,
        base_digest=findings.base.digest,
        files=files,
        sizes={name: (out / name).stat().st_size for name in files},
        digest=bundle_digest(recipe.adapter, files, findings.release.digest, findings.base.digest, findings.decision),
        created=created,
    )
    reports = {
        "bundle": bundle,
        "base": findings.base,
        "dataset": findings.release,
        "training": findings.training,
        "gates": findings.decision,
    }
    for name, report in reports.items():
        write_json(out / f"{name}.json", report)
    if findings.forgetting:
        write_json(out / "forgetting.json", [changes.model_dump(mode="json") for changes in findings.forgetting])
    write_report(out / "report.html", findings)
    (out / "card.md").write_text(adapter_card(findings, bundle.digest), encoding="utf-8")
    return bundle
