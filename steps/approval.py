"""Approval: which released version counts, checked again from its files up."""

import shutil
from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from pocketloop.contracts.rollout import Promotion
from steps.stage import stage


@step(enable_cache=False)
def approval(adapter: str) -> tuple[Annotated[Promotion, "promotion"], Annotated[Folder, "bundle"]]:
    """Take the newest approval that was never rolled out; refusals are written on their versions in MLflow."""
    from pocketloop.delivery.repository import Repository
    from pocketloop.delivery.rollouts import RolloutStore
    from pocketloop.registry.mlflow_store import fetch_bundle
    from pocketloop.registry.review import review

    home = Home()
    with stage("approval") as this:
        repository = Repository.open(load_delivery(), home)
        tried = {rollout.digest for rollout in RolloutStore(home.rollouts).all() if rollout.adapter == adapter}
        reviewed = review(home, adapter, revoked=repository.revoked(), known_bases=repository.bases())
        refused = [f"{adapter}.released@{found.released}: {found.reason}" for found in reviewed if not found.approval]
        waiting = [found.approval for found in reviewed if found.approval and found.approval.file_digest not in tried]
        if not waiting:
            this.done(f"no approval waits, {len(refused)} released versions refused")
            nothing = Promotion(adapter=adapter, state="nothing", detail="no approval waits", refused=refused)
            return nothing, Folder.of(this.scratch)
        newest = waiting[-1]
        with fetch_bundle(home, newest.candidate) as folder:
            shutil.copytree(folder, this.scratch, dirs_exist_ok=True)
        this.done(f"{adapter}@{newest.candidate.version}, approved as {adapter}.released@{newest.released}")
        promotion = Promotion(
            adapter=adapter,
            state="waiting",
            detail="approved",
            version=newest.candidate.version,
            released=newest.released,
            digest=newest.file_digest,
            base_digest=newest.candidate.base_digest,
            refused=refused,
        )
        return promotion, Folder.of(this.scratch)
