import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_blocks import Count, Meet, Square, Write
from until import PATIENCE

from pocketloop.blocks.run import run_blocks
from pocketloop.contracts.collecting import ComputeConfig
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.files import Folder

pytestmark = pytest.mark.slow

HERE, DATA_TESTS = Path(__file__).parent, Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComputeConfig]:
    """Two Ray nodes of one CPU each, as two machines would be."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(DATA_TESTS), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(DATA_TESTS))
        patch.setenv("OMP_NUM_THREADS", "1")
        nodes: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000, "wait": False}
        running = cluster_utils.Cluster(
            initialize_head=True, head_node_args=nodes | {"include_dashboard": False}, shutdown_at_exit=True
        )
        try:
            running.add_node(**nodes)
            running.wait_for_nodes(PATIENCE)
            yield ComputeConfig(executor="ray", workers=2, ray_address=running.address)
        finally:
            ray.shutdown()
            running.shutdown()


def test_tasks_run_on_both_nodes_and_give_what_local_ones_give(cluster: ComputeConfig, tmp_path: Path) -> None:
    for name in ("out", "met"):
        (tmp_path / name).mkdir()
    run_blocks([Count(10), Meet(tmp_path / "met", 2), Square(), Write(tmp_path / "out")], 4, cluster, tmp_path / "work")
    said = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert sorted(number for task in said for number in task["squares"]) == [n * n for n in range(10)]
    assert len({task["node"] for task in said} - {""}) == 2


def test_a_failing_block_is_heard_from_the_cluster_and_the_next_run_goes_on(
    cluster: ComputeConfig, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    broken = tmp_path / "broken"
    broken.touch()
    pipeline = [Count(2), Square((1,), broken), Write(tmp_path / "out")]
    with pytest.raises(DataError, match="this number is refused") as caught:
        run_blocks(pipeline, 2, cluster, tmp_path / "work")
    assert caught.value.__notes__ == ["in task 2 of 2"]
    with pytest.raises(RuntimeError, match="ValueError: a bug"):
        run_blocks([Count(2), Square((1,), broken, how="bug")], 1, cluster, tmp_path / "other")
    broken.unlink()
    run_blocks(pipeline, 2, cluster, tmp_path / "work")
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_selection_on_the_cluster_equals_selection_here(cluster: ComputeConfig, tmp_path: Path) -> None:
    from selection_samples import intent, recipe, run_select, sentences

    texts = sentences(300, 1)
    examples = [intent(text, "xyz"[n % 3], f"g{n % 40}") for n, text in enumerate([*texts, *texts[:80]])]
    config = recipe(near_duplicates=0.9, decontaminate=5, per_device=7, dominance=0.5, balance=1.2)
    digests = set()
    for compute in (ComputeConfig(workers=1), cluster):
        run_select(tmp_path, examples, config, parts=2, evaluation={"heldout": texts[:5]}, compute=compute)
        digests.add(Folder.of(tmp_path / "selected").digest)
    assert len(digests) == 1
