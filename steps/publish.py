"""Publish: reviewers' signatures over the adapter and its facts, then the files, for every device at once."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.delivery import AdapterFacts
from pocketloop.contracts.errors import ReviewRefused
from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from pocketloop.contracts.reports import GateDecision, ReleaseBundle, worst
from pocketloop.contracts.rollout import Promotion
from pocketloop.device.companion import companion_of
from steps.stage import stage


@step(enable_cache=False)
def publish(promotion: Promotion, bundle: Folder) -> Annotated[Promotion, "published"]:
    """Propose the adapter, sign with the reviewers' keys that lie here, publish once enough have signed."""
    from pocketloop.delivery.repository import Repository

    with stage("publish") as this:
        if promotion.state == "nothing":
            this.done("nothing to publish")
            return promotion
        _must_have_passed(promotion, bundle)
        repository = Repository.open(load_delivery(), Home())
        if promotion.digest not in repository.approved():
            repository.propose_adapter(bundle / "adapter.gguf", companion_of(bundle.path), facts(promotion, bundle))
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


def _must_have_passed(promotion: Promotion, bundle: Folder) -> None:
    """The last look before signatures: whatever led here, an inconclusive verdict is nobody's pass.

    Raises:
        ReviewRefused: the gates did not all pass.
    """
    decision = GateDecision.model_validate_json((bundle / "gates.json").read_bytes())
    verdicts = {decision.verdict, worst(gate.verdict for gate in decision.gates)}
    if verdicts != {"pass"}:
        name = f"{promotion.adapter}@{promotion.version}"
        raise ReviewRefused(f"{name} is not published: its gates say {worst(verdicts)}, and only a pass may ship")


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
