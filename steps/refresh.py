"""Refresh: sign again what expires soon, so that no phone ever takes an honest repository for a frozen one."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from steps.stage import stage


@step(enable_cache=False)
def refresh() -> Annotated[list[str], "refreshed"]:
    """Renew the online roles; name what needs people's keys."""
    from pocketloop.delivery.repository import Repository

    with stage("refresh") as this:
        done = Repository.open(load_delivery(), Home()).refresh()
        this.done("; ".join(done) or "nothing expires soon")
        return done
