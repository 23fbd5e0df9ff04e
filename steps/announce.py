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
    """Tell people about the decisions of each rollout."""
    with stage("announce") as this:
        for rollout in rollouts:
            shutil.copy(tell(Home(), rollout), this.scratch)
        this.done(", ".join(f"{r.rollout_id}.html" for r in rollouts) or "nothing to tell")
        return Folder.of(this.scratch)


def tell(home: Home, rollout: Rollout) -> Path:
    """Write what was decided since people were last told into MLflow, draw the rollout's page (returned), and notify.

    Nothing is lost when an earlier run was cut between deciding and telling. Alias `champion` follows what the stable
    channel serves, so that later candidates are compared with it.
    """
    from pocketloop.delivery.notify import notify
    from pocketloop.delivery.page import write_page
    from pocketloop.delivery.rollouts import RolloutStore
    from pocketloop.registry.history import clear_champion, set_champion, write_history

    store, address = RolloutStore(home.rollouts), load_delivery().notify
    page = home.rollouts / f"{rollout.rollout_id}.html"
    write_page(page, rollout)
    for decision in store.untold(rollout):
        write_history(home, rollout.adapter, rollout.released, decision.reason, rollout, decision.at)
        failure = notify(address, rollout, decision)
        if failure:
            print(f"  {failure}", flush=True)
    served = rollout.digest if rollout.state == "complete" else rollout.previous
    served_by = next((r for r in store.all() if r.digest == served), None)
    if served_by is not None:
        set_champion(home, rollout.adapter, served_by.released)
    else:
        clear_champion(home, rollout.adapter)
    store.mark_told(rollout)
    return page
