"""Publish: reviewers' signatures over the adapter and its facts, then the files, for every device at once."""

import json
from typing import Annotated

from zenml import step

from pocketloop.contracts.delivery import AdapterFacts, Companion
from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from pocketloop.contracts.recipe import Catalogue, Recipe
from pocketloop.contracts.reports import ReleaseBundle
from pocketloop.contracts.rollout import Promotion
from pocketloop.models.probes import load_probes
from pocketloop.tasks.tasks import TaskSpec
from steps.stage import stage


@step(enable_cache=False)
def publish(promotion: Promotion, bundle: Folder) -> Annotated[Promotion, "published"]:
    """Propose the adapter, sign with the reviewers' keys that lie here, publish once enough have signed."""
    from pocketloop.delivery.repository import Repository

    with stage("publish") as this:
        if promotion.state == "nothing":
            this.done("nothing to publish")
            return promotion
        repository = Repository.open(load_delivery(), Home())
        if promotion.digest not in repository.approved():
            repository.propose_adapter(bundle / "adapter.gguf", companion(bundle), facts(promotion, bundle))
            signatures = repository.sign()
            if not signatures.complete:
                detail = (
                    f"{len(signatures.have)} of {signatures.need} reviewers have signed: "
                    "`pocketloop cdn proposal` shows what, `pocketloop cdn sign` signs"
                )
                this.done(detail)
                return promotion.model_copy(update={"state": "waiting", "detail": detail})
        repository.publish()
        this.done(f"{promotion.adapter}@{promotion.version} is signed and public, {str(promotion.digest)[:12]}")
        return promotion.model_copy(update={"state": "published", "detail": "signed and public"})


def facts(promotion: Promotion, bundle: Folder) -> AdapterFacts:
    """What reviewers sign beside the file itself."""
    described = ReleaseBundle.model_validate_json((bundle / "bundle.json").read_text(encoding="utf-8"))
    return AdapterFacts(
        adapter=promotion.adapter,
        version=promotion.version,
        released=promotion.released,
        bundle_digest=described.digest,
        base_digest=described.base_digest,
        task=described.task,
    )


def companion(bundle: Folder) -> Companion:
    """How a phone asks this adapter, and how it proves that the file works there."""
    recipe = Recipe.model_validate_json((bundle / "recipe.json").read_text(encoding="utf-8"))
    catalogue = bundle / "catalogue.json"
    listed = Catalogue.model_validate(json.loads(catalogue.read_text("utf-8"))) if catalogue.is_file() else None
    return Companion(
        adapter=recipe.adapter,
        task=recipe.task,
        system=recipe.prompt.system,
        tools=TaskSpec.of(recipe, listed).tools,
        labels=listed.labels if listed else [],
        max_new_tokens=recipe.evaluation.max_new_tokens,
        probes=load_probes(bundle.path),
    )
