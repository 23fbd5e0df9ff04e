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
# # 03 · Compare two adapters
#
# The champion was trained on the first release of notebook 02. The candidate goes on from it, with what the widget
# brought and a share of old examples. Is it better? Two averages cannot say, because most of their error is about
# which items are hard. Both models answered the *same* held-out requests, so each item is its own comparison.
#
# For two registered versions, read the outcomes from their bundles instead: `fetch_bundle` and `read_evidence`.

# %%
import pandas as pd
from IPython.display import SVG
from pipelines import by_hand
from pocketloop.contracts.figures import titled

home = by_hand.demo_home()
recipe = by_hand.demo_recipe("train.start=champion")
old, new = by_hand.two_releases(home, by_hand.demo_recipe())
champion = by_hand.train(home, by_hand.demo_recipe(), old)
candidate = by_hand.train(home, recipe, new, by_hand.as_champion(home, champion, old, "1"))
report, outcomes = by_hand.ask(home, recipe, new, {"adapter": candidate.file, "champion": champion.file})

# %% [markdown]
# ## Scores, each on its own
#
# The usual picture, and the wrong one to decide on: these intervals are of each model alone. Overlap does not mean
# that the models are equal.

# %%
from pocketloop.evaluation.plots import scores_figure

ours, theirs = (result.metrics["function_exact"] for result in report.results)
SVG(titled(scores_figure(report.results), f"Whole calls: candidate {ours.value:.0%}, champion {theirs.value:.0%}"))

# %% [markdown]
# ## Item by item
#
# Only items on which the two differ tell them apart. McNemar's test asks whether wins and losses among those could be
# tosses of a coin. It is exact, so it holds for ten items as for ten thousand.

# %%
from pocketloop.contracts.recipe import Gate
from pocketloop.evaluation.paired_gates import compared_gate, paired_scores
from pocketloop.evaluation.plots import paired_figure
from pocketloop.evaluation.statistics import mcnemar_exact

gate = Gate(metric="function_exact", noninferior_to="champion", margin=0.03)
judged = compared_gate(gate, outcomes)
whole = judged.measured
both = sum(mine == other == 1 for mine, other in zip(*paired_scores(gate.metric, outcomes, "champion"), strict=True))
print(f"exact McNemar, two-sided: p = {mcnemar_exact(whole.losses, whole.wins):.2g}")
SVG(titled(paired_figure(whole, both, "champion"), f"Wins {whole.wins}, losses {whole.losses}, out of {whole.n} items"))

# %% [markdown]
# ## The difference, and what is allowed
#
# The gate does not ask for better, but for *not worse by 3 points or more*: the lower bound must lie right of the
# dashed line. Where bounds reach over the line, the gate is inconclusive, and inconclusive never ships by itself.
#
# Below the mean, look at slices, but at few, and at those for which you have a reason. Notebook 02 gave one: calls
# that the widget makes, and all others.

# %%
from pocketloop.evaluation.plots import differences_figure
from pocketloop.evaluation.slice_gates import slices_gate
from pocketloop.evaluation.suite import Outcome


def cut(one: Outcome) -> Outcome:
    widget = "its calls" if one.reference in by_hand.WIDGET else "all others"
    return one.model_copy(update={"slices": {**one.slices, "widget": widget}})


by_slice = gate.model_copy(update={"slices": ["widget", "length"]})
sliced = slices_gate(by_slice, {model: [cut(one) for one in found] for model, found in outcomes.items()})
drawing = differences_figure(whole, sliced.slices, gate.allowance, "champion")
SVG(titled(drawing, f"Candidate minus champion: {whole.observed:+.3f} overall, gate says {judged.verdict}"))

# %% [markdown]
# Two averages that look alike can hide an exchange: better where the new data is, worse everywhere else. Is the loss
# chance? Of many slices some look bad, so Holm's correction makes each pay for all: a slice fails only where its
# corrected p-value is small.

# %%
pd.DataFrame(
    [
        {
            "slice": one.name,
            "items": one.measured.n,
            "wins": one.measured.wins,
            "losses": one.measured.losses,
            "difference": round(one.measured.observed, 3),
            "p of worse than allowed, corrected": round(one.measured.p_against, 3),
            "verdict": one.verdict,
        }
        for one in sliced.slices
    ]
)

# %% [markdown]
# ## Regressions
#
# Last, look at single items that the champion got right and the candidate does not, one from each class first. A mixed
# list is noise; a list in which the wrong answer is always of one kind is a pattern. The words are of the demo's
# evaluation set. Of items that came from a device only the id would be shown.

# %%
from pocketloop.contracts.files import Folder
from pocketloop.evaluation.regressions import regressions
from steps.examples import evaluation_sets

items = evaluation_sets(Folder.of(home.root / "demo"), recipe)["heldout"]
examples = {example.example_id: example for example in items}
lost = regressions(outcomes, gate.metric, examples, lambda chosen: [one.messages for one in chosen], most=len(items))
taken = sum(one.ours in by_hand.WIDGET and one.reference not in by_hand.WIDGET for one in lost)
print(f"{taken} of {len(lost)} regressions now get one of the widget's calls")
pd.set_option("display.max_colwidth", None)
pd.DataFrame(
    [
        {"said": one.turns[0][1], "right": one.reference, "candidate": one.ours, "champion": one.theirs}
        for one in lost[:8]
    ]
)

# %% [markdown]
# So the candidate has learnt the widget and forgotten some of the rest. That is what going on from a champion with
# lopsided data does. The knob is `train.replay`, the share of old examples that are mixed in; the other one is to
# start from the base again, on everything.
