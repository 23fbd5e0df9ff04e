"""Label: which answers are right enough to learn from, and how well that verdict agrees with people."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4

from zenml import step

from pocketloop.contracts.files import Folder, atomic_file, write_json, write_jsonl
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.labels import RIGHT_ANSWER
from pocketloop.contracts.loading import load_catalogue, load_rubric
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import LabelReport
from steps.stage import BY_CONTENT, stage


@step(enable_cache=False)
def people(recipe: Recipe) -> Annotated[Folder, "people"]:
    """Gather what people said so far: in the recipe's file, in imported files, and in MLflow.

    A run of the judge that was left unfinished is noted here as well, so that the next one is made.
    """
    from pocketloop.labeling.human import imported_verdicts, known_rubrics, merged, read_verdicts
    from pocketloop.registry.feedback import read_people

    with stage("people") as this:
        found = imported_verdicts(Home())
        if recipe.label.human:
            path = Path(recipe.label.human)
            found = [*found, *read_verdicts(path if path.is_absolute() else project_root() / path, known_rubrics())]
        in_files = len(found)
        found = merged([*found, *read_people(Home(), recipe.adapter)])
        out = this.scratch / "people"
        found.sort(key=lambda one: one.model_dump_json())
        write_jsonl(out / "verdicts.jsonl", found)
        write_json(out / "judge.json", {"run": _unfinished_run(recipe) if recipe.label.llm else ""})
        this.done(f"{in_files} verdicts in files, {len(found) - in_files} in MLflow")
        return Folder.of(out)


@step(cache_policy=BY_CONTENT)
def label(
    recipe: Recipe, validated: Folder, people: Folder, sampled: Folder
) -> tuple[Annotated[Folder, "labelled"], Annotated[LabelReport, "label_report"]]:
    """Turn scrubbed events into examples with an answer that the judge and the person stand behind."""
    from pocketloop.contracts.files import read_jsonl
    from pocketloop.contracts.labels import ForPeople, HumanVerdict
    from pocketloop.labeling.label import label as label_records
    from pocketloop.registry.feedback import ask_people

    with stage("label") as this:
        out = this.scratch / "labelled"
        report = label_records(
            validated.path,
            recipe,
            load_catalogue(recipe),
            out,
            people=map(HumanVerdict.model_validate, read_jsonl(people / "verdicts.jsonl")),
            cache=Home().cache / "judge",
            kept=Home().cache / "curation",
            samples=sampled / "samples.jsonl",
        )
        if report.use and report.use.unfinished + report.use.failed:
            _note_unfinished_run(recipe)
        rows = [ForPeople.model_validate(row) for row in read_jsonl(out / "for_people.jsonl")]
        rubric = recipe.label.llm.rubric if recipe.label.llm and recipe.label.judge == "llm" else RIGHT_ANSWER
        shown = ask_people(Home(), recipe.adapter, rows, load_rubric(rubric))
        this.done(
            f"{report.count.kept} examples ({report.corrected} corrected by their user), "
            f"{sum(report.count.left_out.values())} left out, {sum(report.pairs.values())} pairs; {_kappas(report)}"
            + (f"; {shown} answers to look at in MLflow" if shown else ""),
            left_out=report.count.left_out,
            pairs=report.pairs,
            rated=report.rated,
            kappa={found.source: found.kappa for found in report.agreement if found.kappa is not None},
        )
        return Folder.of(out), report


def _kappas(report: LabelReport) -> str:
    told = [
        f"kappa {found.kappa:.2f} on {found.n} {'thumbs' if found.source == 'thumbs' else 'verdicts of people'}"
        for found in report.agreement
        if found.kappa is not None
    ]
    return ", ".join(told) or "no rated answers"


def _unfinished_run(recipe: Recipe) -> str:
    """What names the last run that was left unfinished: it changes only with another such run."""
    path = _note(recipe)
    if not path.is_file():
        _note_unfinished_run(recipe)
    return path.read_text(encoding="utf-8")


def _note_unfinished_run(recipe: Recipe) -> None:
    with atomic_file(_note(recipe)) as temporary:
        temporary.write_text(uuid4().hex, encoding="utf-8")


def _note(recipe: Recipe) -> Path:
    return Home().cache / "judge" / f"unfinished-{recipe.adapter}"
