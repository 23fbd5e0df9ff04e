"""Prepare the base: convert and quantize it once, and record what phones must hold before an adapter fits."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import BaseConfig, GgufConfig
from pocketloop.contracts.reports import BaseManifest
from steps.stage import BY_CONTENT, stage


@step(cache_policy=BY_CONTENT)
def prepare_base(
    base: BaseConfig, gguf: GgufConfig
) -> tuple[Annotated[Folder, "base_files"], Annotated[BaseManifest, "base_manifest"]]:
    """GGUF files, golden probes and digest of one base; a base that was prepared before is reused."""
    from pocketloop.export.base import prepare_base as prepare

    with stage("base") as this:
        folder, manifest = prepare(base, gguf.base, Home().bases)
        this.done(
            f"{manifest.base}: {manifest.parameters / 1e6:.1f} M parameters, {manifest.quantization} at "
            f"{manifest.bits_per_weight:.2f} bits per weight, {manifest.digest[:12]}",
            digest=manifest.digest,
            bits_per_weight=manifest.bits_per_weight,
            fallback_tensors=manifest.fallback_tensors,
        )
        return Folder.of(folder), manifest
