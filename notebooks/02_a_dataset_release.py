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
# # 02 · Read a dataset release
#
# A release is immutable and accounts for every record: what entered is what was kept plus what was left out, by
# reason. Here are two releases of the demo fleet. Between them its app got a widget on the lock screen for timers,
# alarms and reminders, and the second release has what came in through it.
#
# For your own: `home = Home()` and the name of your adapter, from `pocketloop.contracts.home`.

# %%
import pandas as pd
from IPython.display import SVG
from pipelines import by_hand
from pocketloop.contracts.figures import titled
from pocketloop.data.comparing import compare, find_release
from pocketloop.data.release import read_profile, read_release

home = by_hand.demo_home()
by_hand.two_releases(home, by_hand.demo_recipe())

before, after = find_release(home, "functions~1"), find_release(home, "functions")
release, profile = read_release(after), read_profile(after)

# %% [markdown]
# ## What was collected, and what was dropped
#
# Read the funnel from the top. Large losses belong at the top, where consent and skill decide. Large losses further
# down mean that a source is broken, or a judge too strict.

# %%
from pocketloop.data.release_figures import funnel_figure

first, last = release.stages[0], release.stages[-1]
SVG(titled(funnel_figure(release.stages), f"{last.kept:,} of {first.entered:,} records were kept, stage by stage"))

# %% [markdown]
# Each loss has a reason. A reason that grows between releases is worth a look at `quarantine.jsonl`, which lists every
# record by id.

# %%
diff = compare(before, after)
reasons = pd.DataFrame(diff.left_out.values(), index=diff.left_out.keys(), columns=["before", "after"])
reasons.sort_values("after", ascending=False)

# %% [markdown]
# ## What was scrubbed
#
# Types that nobody would say to a household assistant (`IBAN`, `API_KEY`) are rare but not zero: people paste. A type
# that grows suddenly is a sign of a new input field in an app. How well the scrubber finds each type on labelled text
# stands in the card of every release that the pipeline makes (`card.html`).

# %%
from pocketloop.data.release_figures import found_figure

values = sum(release.scrub.found.values())
SVG(titled(found_figure(release.scrub.found), f"{values:,} values were replaced"))

# %% [markdown]
# ## What drifted
#
# Evidently compares descriptors (lengths, answers, locales; never words) with the release before. The index is about 0
# when two samples are from the same fleet; small samples reach a little more by chance, and the dashed line allows for
# that.

# %%
from pocketloop.data.drift import drift_bound
from pocketloop.data.release_figures import drift_figure

columns = release.drift.columns
bound = drift_bound(release.drift.rows, read_release(before).validation.count.kept)
drifted = [name for name, value in columns.items() if value > bound]
SVG(titled(drift_figure(columns, bound), f"Drifted since the last release: {', '.join(drifted) or 'nothing'}"))

# %% [markdown]
# A drifted column says where to look, not what happened. Here it is the answers; the next figure shows which. The bars
# are this release, the ticks are where the previous one had them. No source broke: the widget's three calls take more
# room, and all others less. (`kind`, `locale` and `app_version` moved a little with it, because the team's own
# examples, which have neither locale nor version, are a smaller share now.) That is fine for the fleet as it is. It is
# also a warning: an adapter that goes on learning from this may forget the rest, and notebook 03 looks at just that.

# %%
from pocketloop.data.release_figures import mix_figure

parent = {name: counts[0] for name, counts in diff.labels.items() if counts[0]}
share = sum(counts[1] for name, counts in diff.labels.items() if name in by_hand.WIDGET) / sum(release.splits.values())
SVG(titled(mix_figure(profile.labels, parent), f"The widget's three calls are {share:.0%} of the examples now"))

# %% [markdown]
# ## Did the splits hold?
#
# Records of one device never stand on both sides of a split, and a device stays where it was in the release before.
# `moved` is therefore 0 unless somebody changed the seed; anything else makes old test scores worthless.

# %%
turnover = {"added": diff.examples.added, "removed": diff.examples.removed, "kept": diff.examples.kept}
pd.DataFrame([{**turnover, "moved": diff.moved, "new devices": diff.groups.added}], index=["examples"])
