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
# # 05 · Bring your own task
#
# From a JSONL file to an adapter that passed its gates: a router for the voice button of a coffee machine. You need
# two files, one to learn from and one to be judged on, and two commands. Here the files are written by hand; yours
# come from wherever your labels are.
#
# ## Two files
#
# One line an example. The held-out file must not be a random part of the first: its phrasings are others, as your
# users' will be.

# %%
import itertools
import json

import pandas as pd
from IPython.display import SVG
from pipelines import by_hand
from pocketloop.contracts.figures import titled

home = by_hand.demo_home()
drinks = ["espresso", "cappuccino", "latte", "filter coffee", "hot chocolate"]
times = ["at seven", "tomorrow morning", "on Sunday at nine"]
amounts = ["a little", "much", "slightly"]
learn = {
    "brew": ["make me a {0}", "one {0} please", "brew a {0}", "I would like a {0}", "pour a {0}", "a {0} now"],
    "schedule": ["have a {0} ready {1}", "brew a {0} {1}", "I need a {0} {1}", "{1} a {0} please"],
    "strength": [
        "make it {2} stronger",
        "{2} weaker please",
        "I want it {2} stronger",
        "{2} less strong",
        "{2} milder",
    ],
    "clean": [
        *("rinse the machine", "descale yourself", "run a cleaning cycle", "clean the milk pipe", "flush the pipes"),
        *("rinse yourself", "descale it now", "wash the milk pipe", "start cleaning", "it needs a rinse"),
    ],
    "status": [
        *("how much water is left", "is the tank full", "do you need beans", "are you ready", "any errors"),
        *("is there milk left", "how many beans are left", "is the tank empty", "do you need water", "is it hot"),
    ],
    "stop": ["stop", "stop that", "cancel the {0}", "no {0} after all", "turn yourself off", "abort the {0}"],
}
ask = {
    "brew": ["could you make a {0}", "get me one {0}", "time for a {0}"],
    "schedule": ["please brew my {0} {1}", "I want a {0} {1}", "have the {0} ready {1}"],
    "strength": ["make the next one {2} stronger", "I want it {2} weaker"],
    "clean": ["please clean the machine", "start a rinse", "descale the machine now", "clean the pipes"],
    "status": ["is there enough water", "how full is the tank", "are there beans left", "do you need milk"],
    "stop": ["please stop", "cancel my {0}", "turn off the machine", "stop the {0}"],
}


def lines(phrasings: dict[str, list[str]]) -> list[dict[str, str]]:
    values = list(itertools.product(drinks, times, amounts))
    said = {(text.format(*some), label) for label, texts in phrasings.items() for text in texts for some in values}
    return [{"input": text, "output": label} for text, label in sorted(said)]


for name, rows in (("learn", lines(learn)), ("ask", lines(ask))):
    (home.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
pd.DataFrame({name: pd.DataFrame(lines(rows)).output.value_counts() for name, rows in (("learn", learn), ("ask", ask))})

# %% [markdown]
# The counts are uneven because phrasings have different numbers of values. That is left as it is: whether a class has
# too few shows in the confusions at the end.
#
# ## A recipe
#
# `new` derives the labels from the files and writes a recipe, which is yours to edit from then on. Without `--folder`
# it goes to `configs/adapters/`.

# %%
import subprocess
import sys
from pathlib import Path


def pocketloop(*arguments: str) -> str:
    """Run the command line; a candidate that failed its gates (exit status 3) is a result, not an error."""
    command = [str(Path(sys.executable).with_name("pocketloop")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


files = [f"--examples={home.root / 'learn.jsonl'}", f"--eval={home.root / 'ask.jsonl'}"]
pocketloop("new", "coffee", "--task=intent", *files, f"--folder={home.root}", "--force")
print((home.root / "coffee.yaml").read_text(encoding="utf-8"))

# %% [markdown]
# ## The pipeline
#
# One command from the recipe to a registered candidate. Overrides with `--set` are for this run alone. The safety
# checks on behaviour are switched off here to save time; leave them on for phones.

# %%
import re

overrides = ["--set=safety={behaviour: null}", "--set=train.stages.0.sft.epochs=12"]
printed = pocketloop("retrain", str(home.root / "coffee.yaml"), *overrides)
for line in printed.splitlines():
    if line.startswith("✓"):
        print(re.sub(r" +[\d.]+ s ", " ", line)[:110])

# %% [markdown]
# ## The verdict
#
# Every gate with what it saw. Those against the champion pass because there is none yet: from your second version on
# they are the ones that matter.

# %%
from pocketloop.registry.mlflow_store import candidate, fetch_bundle, read_decisions

[(version, decision)] = read_decisions(home, "coffee", 1)
print(f"{version}: {decision.verdict}")
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"gate": gate.gate, "verdict": gate.verdict, "why": gate.detail} for gate in decision.gates])

# %%
from pocketloop.evaluation.evidence import read_evidence
from pocketloop.evaluation.plots import confusion_figure, scores_figure

with fetch_bundle(home, candidate(home, "coffee")) as bundle:
    evaluation = read_evidence(bundle).evaluation
right = evaluation.results[0].metrics["intent_accuracy"]
shown = [result for result in evaluation.results if result.model in ("adapter", "base")]
SVG(titled(scores_figure(shown), f"{right.value:.0%} of {right.n} new phrasings are routed right; the base alone none"))

# %% [markdown]
# What to do next stands in the confusions: a cell off the diagonal is a pair of labels for which you need more, or
# clearer, examples. Add lines, run `new --force` and `retrain` again. Once a reviewer has made this version the
# champion, the next one is compared with it, item by item, as in notebook 03.

# %%
wrong = sum(n for label, row in evaluation.confusion.items() for answer, n in row.items() if answer != label)
SVG(titled(confusion_figure(evaluation.confusion), f"{wrong} mistakes, and where they are"))
