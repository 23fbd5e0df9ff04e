# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · From event to adapter
#
# One turn of the loop by hand: what phones post becomes a dataset release, the release becomes a LoRA adapter, the
# adapter becomes a file for phones, and held-out requests say what it is worth. Every cell calls the function that the
# pipeline's step of that name calls (`steps/*.py`); only ZenML's store and MLflow are left out.
#
# The data is a made-up fleet of household assistants. Everything is written to `notebooks/` inside the project's home,
# so your own log, releases and versions are not touched.

# %%
import pandas as pd
from IPython.display import SVG
from pipelines import by_hand
from pocketloop.contracts.figures import titled
from pocketloop.contracts.loading import load_base_config, load_catalogue

home = by_hand.demo_home()
recipe = by_hand.demo_recipe()
catalogue, base = load_catalogue(recipe), load_base_config(recipe.base)

# %% [markdown]
# ## What arrives
#
# Phones post events at least once, so about one in fifty comes twice; the log keeps it once. Here is one event of a
# made-up person, the only raw text in these notebooks. Two things in it decide what follows: `consent`, and the thumb
# or correction under `feedback`.

# %%
from pocketloop.contracts.files import read_jsonl

posted = by_hand.post_events(home, 0, by_hand.FIRST)
print(f"{posted.lines:,} lines: {posted.new:,} new events, {posted.duplicates} known already")

events = [
    e
    for e in read_jsonl(home.root / "demo" / f"events-0-{by_hand.FIRST}.jsonl")
    if e["adapter"]["skill"] == "functions"
]
event = next(e for e in events if e["consent"]["training"] and e["feedback"]["rating"] and len(e["demo"]["pii"]) > 1)
{key: event[key] for key in ("device_id", "locale", "consent", "messages", "feedback")}

# %% [markdown]
# ## Collect and scrub
#
# Collect takes what this recipe may use: its skill, with consent, not too old; and the example file that a team wrote
# by hand. Scrub replaces personal data by placeholders that stay the same within a device, so that "call Anna" and its
# call `contact: Anna` still agree. Training later fills them with made-up values.

# %%
from pocketloop.data.collect import collect
from pocketloop.data.shards import MANIFEST, LogShards
from pocketloop.privacy.placeholders import PLACEHOLDER
from pocketloop.privacy.pseudonyms import load_key
from pocketloop.privacy.scrubber import Scrubber, slots_of, vocabulary_of
from pocketloop.privacy.shards import scrub_shards

work = by_hand.workplace(home, "01")
collected = collect(recipe, home.events, work / "collected", by_hand.DEMO_DAY)

scrubber = Scrubber(recipe.scrub, load_key(home), slots_of(catalogue), vocabulary_of(catalogue))
shards = LogShards(home.events, work / "collected" / MANIFEST)
scrubbed = scrub_shards(shards, work / "scrubbed", scrubber, home.cache / "scrub", collected=work / "collected")

rows = (row for file in (work / "scrubbed").glob("events-*.jsonl") for row in read_jsonl(file))
kept = next(row for row in rows if row["event_id"] == event["event_id"])
[PLACEHOLDER.sub(r"<\1>", str(turn["content"] or turn["tool_calls"])) for turn in kept["messages"]]

# %%
from pocketloop.data.release_figures import found_figure

most = max(scrubbed.found, key=scrubbed.found.get)
SVG(titled(found_figure(scrubbed.found), f"{most} is what people say most; values replaced, by type"))

# %% [markdown]
# ## Validate, label, select, release
#
# Great Expectations checks the records. The verifier keeps an answer only if its call is valid, says what the user
# said, and no thumb speaks against it; a correction takes the answer's place. Selection drops duplicates and whatever
# stands in the evaluation set. What is left is split by device, so nobody is on both sides.

# %%
from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.files import Folder
from pocketloop.data.drift import drift
from pocketloop.data.release import write_release
from pocketloop.data.release_figures import funnel_figure
from pocketloop.data.select.selecting import select
from pocketloop.data.validate import validate
from pocketloop.labeling.label import label
from steps.examples import evaluation_sets

validated = validate(work / "scrubbed", recipe, catalogue, work / "validated")
drifted = drift(work / "validated", recipe, None, work / "drift")  # nothing to compare with yet: notebook 02
labelled = label(work / "validated", recipe, catalogue, work / "labelled")
heldout = evaluation_sets(Folder.of(work), recipe)["heldout"]
selected = select(
    work / "labelled",
    recipe,
    work / "selected",
    evaluation={"heldout": [one.prompt for one in heldout]},
    previous=None,
    compute=ComputeConfig(workers=1),
    work=work / "selecting",
)
release = write_release(
    home,
    recipe,
    scrubbed=work / "scrubbed",
    validated=work / "validated",
    selected=work / "selected",
    collect=collected,
    scrub=scrubbed,
    validation=validated,
    drift=drifted,
    label=labelled,
    select=selected,
)
learnt, entered = sum(release.splits.values()), release.stages[0].entered
SVG(titled(funnel_figure(release.stages), f"Of {entered:,} records {learnt:,} are worth learning from"))

# %% [markdown]
# Is the verifier any good? It never saw the thumbs when it judged, so they can judge it: Cohen's kappa is 0 for chance
# and 1 for agreement. The recipe refuses a release whose judge falls below `label.min_kappa`.

# %%
pd.DataFrame(
    [
        {"judge": release.label.judge, "against": a.source, "n": a.n, "kappa": round(a.kappa, 2), "95 %": interval}
        for a in release.label.agreement
        for interval in [" to ".join(f"{bound:.2f}" for bound in a.interval)]
    ]
)

# %% [markdown]
# ## Train
#
# A LoRA on the embedded base `tiny` (6 million parameters), one short epoch. Watch two things: whether the loss still
# falls when training ends (it does: the full recipe takes five epochs), and whether the held-out loss, the dot, stands
# where the training loss ends. Far above it would mean learning by heart.

# %%
from pocketloop.evaluation.plots import loss_figure
from pocketloop.tasks.tasks import TaskSpec
from pocketloop.training.run import train_adapter
from steps.training_data import training_data

task = TaskSpec.of(recipe, catalogue)
dataset = by_hand.dataset(home, release)
data = training_data(dataset, recipe, task).data
place = by_hand.workplace(home, "train", recipe.digest, release.digest, "")
report = train_adapter(base, data, task, recipe.train, place / "adapter", place / "training", lambda progress: None)
share = report.trainable / report.parameters
SVG(titled(loss_figure(report), f"{report.steps} steps on {share:.0%} of the weights, and the loss is still falling"))

# %% [markdown]
# ## Export, then ask
#
# What is judged is what a phone runs: the adapter as a GGUF file beside the quantized base, in llama.cpp. The held-out
# requests use templates and values that training never saw. `function_name` asks for the right function,
# `function_exact` for every argument as well.

# %%
from pocketloop.evaluation.plots import scores_figure
from pocketloop.evaluation.suite import run_set
from pocketloop.export.adapter import export_adapter
from pocketloop.export.base import prepare_base
from pocketloop.models.llama_cpp import LlamaCppGenerator

prepared = prepare_base(base, recipe.export.gguf.base, home.bases)
exported = export_adapter(place / "adapter", prepared, place / "exported", recipe.export, task, merge_into=base)
print(f"adapter {exported.size / 1e6:.2f} MB beside a base of {prepared.quantized.stat().st_size / 1e6:.2f} MB")

results, outcomes = [], {}
with LlamaCppGenerator(prepared.quantized, prepared.tokenizer, context=base.context) as phone:
    for model, file in {"adapter": exported.path, "base": None}.items():
        phone.set_adapter(file)
        result, outcomes[model] = run_set(phone, heldout, task, recipe.evaluation.max_new_tokens, model, "heldout")
        results.append(result)
name = results[0].metrics["function_name"]
SVG(titled(scores_figure(results), f"The adapter finds {name.value:.0%} of the functions; the base alone none"))

# %% [markdown]
# ## Gates
#
# The verdict is computed from the outcomes of each item. One epoch is not enough for the recipe's floors, and the
# proofs that this notebook did not make (transformers, parity, safety, budget) fail as well: what was not measured is
# not passed. The pipeline makes them; notebook 05 runs it.

# %%
from pocketloop.contracts.reports import EvaluationReport
from pocketloop.evaluation.gates import decide

decision = decide(recipe, EvaluationReport(results=results), outcomes, parity=None, safety=None, budget=None)
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"gate": gate.gate, "verdict": gate.verdict, "why": gate.detail} for gate in decision.gates])
