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
# # 04 · Read a canary
#
# Four thousand simulated phones live through two rollouts: one of an adapter with which apps crash about twice as
# often, one that is as good as the one it replaces. Repository, signatures, collector and watcher are the real ones;
# time and how people use their phones are made up. The watcher looks every six hours and decides each time: widen,
# hold, take back.

# %%
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import SVG
from pipelines import by_hand
from pocketloop.contracts.figures import titled
from pocketloop.contracts.loading import load_base_config
from pocketloop.device.fleet_scenarios import Effect, Expected, load_scenario
from pocketloop.export.base import prepare_base
from pocketloop.services.fleet import rehearse

base = prepare_base(load_base_config("tiny"), "Q4_K_M", by_hand.demo_home().bases)
small = load_scenario("good").model_copy(update={"ladder": "small"})
expected = Expected(state="rolled_back", metrics=("crashes",))
worse = small.model_copy(update={"effects": [Effect(crashes=2.2, fallbacks=1.5)], "expect": expected})
seen = {}
for name, scenario in (("bad", worse), ("good", small)):
    with tempfile.TemporaryDirectory() as folder:
        seen[name] = rehearse(scenario, base, Path(folder), devices=4000)

# %% [markdown]
# ## The bad one
#
# The ladder first: which share of the fleet had the new file, and when. The damage is the area under this line. It was
# widened once: the first rung of this ladder is for disasters, with margins so loose (`loosen: 15`) that a few hundred
# phones can meet them.

# %%
from pocketloop.delivery.page import ladder_figure

bad = seen["bad"]
hours, most = bad.report.decided_hours, max(decision.ppm_before for decision in bad.decisions) / 10_000
SVG(titled(ladder_figure(bad.rollout), f"Taken back after {hours:g} hours; at most {most:g} % of the fleet had it"))

# %% [markdown]
# Why then? Each guardrail counts devices that were affected, in the canary and in an equally large control. If the new
# file did no harm, each newly affected device would be as likely to be in either arm. The e-value is what a bet
# against that has won so far: 1 at the start, 100 after winning hundredfold. A harmless adapter reaches the dashed
# line at most as often as the ladder's `alpha` says, over all looks together. That is why the watcher may look as
# often as it likes, where a p-value computed at each look would sooner or later call anything harmful
# (`benchmarks/canary.py` measures it).

# %%
from pocketloop.delivery.page import evidence_figure

found = [one for one in bad.decisions[-1].guardrails if one.harmful]
names = ", ".join(dict.fromkeys(one.metric for one in found))
SVG(titled(evidence_figure(bad.rollout, bad.decisions), f"Proof of harm by {names}: the line crossed its threshold"))

# %% [markdown]
# How bad is it? The band is the confidence sequence of the ratio, valid at every look: how many times as often canary
# devices were affected. It starts knowing nothing and narrows until all of it lies above 1. The dashed line is what a
# rung allows; on this loose ladder it lies at or beyond the end of the axis.

# %%
from pocketloop.delivery.page import ratio_figure

worst = max((one for one in found if not one.segment), key=lambda one: one.log_e_harm, default=found[0])
said = f"{worst.metric}: at least {worst.ratio_low:.1f} times as many devices"
SVG(titled(ratio_figure(bad.rollout, worst.metric), said))

# %% [markdown]
# The same as the decision's own record keeps it, for whoever has to explain it on Monday.

# %%
pd.DataFrame(
    [
        {
            "guardrail": f"{one.metric} {one.segment}".strip(),
            "canary": f"{one.canary_affected} of {one.canary_devices}",
            "control": f"{one.control_affected} of {one.control_devices}",
            "log10 e-value": round(one.log_e_harm / 2.3026, 2),
            "needed": round(one.harm_threshold / 2.3026, 2),
            "harmful": one.harmful,
        }
        for one in bad.decisions[-1].guardrails
    ]
)

# %% [markdown]
# ## The good one
#
# The same ladder, and nothing happens, which is the point. Evidence of harm wanders and stays far below the line.

# %%
good = seen["good"]
highest = max(one.log_e_harm for decision in good.decisions for one in decision.guardrails) / 2.3026
SVG(titled(evidence_figure(good.rollout, good.decisions), f"No harm: the e-value never exceeded 10^{highest:.1f}"))

# %% [markdown]
# But absence of proof of harm is not proof of harmlessness. To climb, every guardrail needs evidence of its own: the
# whole band below the dashed line. That takes devices, so the ladder's speed is set by the size of the fleet and not
# by patience.

# %%
title = "Crashes of the good adapter: the interval narrows around 1"
SVG(titled(ratio_figure(good.rollout, "crashes"), title))

# %%
SVG(titled(ladder_figure(good.rollout), f"It reached everybody in {good.report.decided_hours / 24:.1f} days"))

# %% [markdown]
# Nobody is left behind: after each rollout every simulated phone, and the real clients by what lies on their disk,
# must hold the right file.

# %%
keys = ("devices", "devices_on_new", "devices_that_went_back_themselves", "devices_astray", "reports")
pd.DataFrame({name: {key: getattr(one.report, key) for key in keys} for name, one in seen.items()}).T
