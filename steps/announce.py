"""Announce: each decision becomes a line in the version's history, a rollout page, and a notification."""

import shutil
from pathlib import Path
from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from pocketloop.contracts.rollout import Rollout
from steps.stage import stage


@step(enable_cache=False)
def announce(rollouts: list[Rollout]) -> Annotated[Folder, "pages"]:
    """Tell people about the newest decision of each rollout."""
    with stage("announce") as this:
        for rollout in rollouts:
            shutil.copy(tell(Home(), rollout), this.scratch)
        this.done(", ".join(f"{r.rollout_id}.html" for r in rollouts) or "nothing to tell")
        return Folder.of(this.scratch)


def tell(home: Home, rollout: Rollout) -> Path:
    """Write a rollout's newest decision into MLflow and onto its page, which is returned, and notify.

    A hold for the same reason as before is on the page only: a look an hour would bury what matters. Alias `champion` follows what the stable channel serves, so that later candidates are compared with it.
    """
    from pocketloop.delivery.notify import notify
    from pocketloop.delivery.page import write_page
    from pocketloop.delivery.rollouts import RolloutStore
    from pocketloop.registry.history import clear_champion, set_champion, write_history

    decision = rollout.decisions[-1]
    page = home.rollouts / f"{rollout.rollout_id}.html"
    write_page(page, rollout)
    if decision.action == "hold" and rollout.decisions[-2].why == decision.why:
        return page
    write_history(home, rollout.adapter, rollout.released, decision.reason, rollout, decision.at)
    served = rollout.digest if rollout.state == "complete" else rollout.previous
    served_by = next((r for r in RolloutStore(home.rollouts).all() if r.digest == served), None)
    if served_by is not None:
        set_champion(home, rollout.adapter, served_by.released)
    else:
        clear_champion(home, rollout.adapter)
    failure = notify(load_delivery().notify, rollout, decision)
    if failure:
        print(f"  {failure}", flush=True)
    return page
