"""The pipeline that rebuilds the recognizer, run for real at a small size."""

from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_pipeline_trains_and_audits_a_model_and_refuses_to_ship_a_poor_one(
    zenml_home: Path, home: Path, tmp_path: Path
) -> None:
    from pocketloop.cli.running import environment, run_pipeline

    environment()
    from zenml.client import Client

    from pipelines.train_ner import train_ner

    out = tmp_path / "model"
    with pytest.raises(Exception, match=r"the trained recognizer is not shipped: .*recall"):
        run_pipeline(train_ner, "local", sentences=1500, seed=3, audit_rows=120, out=str(out))
    assert not out.exists()
    run = Client().list_pipeline_runs(pipeline="train_ner", sort_by="desc:created").items[0]
    steps = {name: str(step.status) for name, step in run.steps.items()}
    assert steps == {
        "generate_corpus": "completed",
        "train_recognizer": "completed",
        "audit_recognizer": "completed",
        "package_recognizer": "failed",
    }
    audit = run.steps["audit_recognizer"].outputs["ner_audit"][0].load()
    assert audit.rows == 120
    model = run.steps["train_recognizer"].outputs["ner_model"][0].load()
    assert sorted(path.name for path in model.path.iterdir()) == ["model.json", "weights.bin", "words.bin"]
