"""How many documents a CPU-second searches for near duplicates, beside datasketch, or datatrove where that is missing.

The documents are made-up requests; every tenth is a planted copy of an earlier one with a letter or two changed. All
sides hash 128 permutations (datatrove: 14 × 8) and look candidates up by bands; ours and datasketch see the same
character shingles, datatrove runs of words. The ratio is the figure that carries over to another machine.

    python benchmarks/duplicates.py --documents 20000
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pocketloop.data.select.keys import shingles
from pocketloop.data.select.near import BANDS, PERMUTATIONS, near_duplicates

BOUND = 0.9
SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu".split()


def documents(count: int, seed: int) -> tuple[list[str], set[int]]:
    """Texts, and the places of copies whose similarity to their original is at least the bound."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(4000)]
    texts: list[str] = []
    originals: list[str] = []
    copies: set[int] = set()
    while len(texts) < count:
        if originals and len(texts) % 10 == 0:
            letters = list(original := rng.choice(originals))
            letters[rng.randrange(len(letters))] = rng.choice("aeiou")
            text = "".join(letters)
            a, b = shingles(original), shingles(text)
            if len(a & b) >= BOUND * len(a | b):
                copies.add(len(texts))
            texts.append(text)
        else:
            originals.append(" ".join(rng.choices(vocabulary, k=rng.randint(8, 20))))
            texts.append(originals[-1])
    return texts, copies


def ours(texts: list[str]) -> set[int]:
    """Propose with rensa's signatures in bands, verify exactly."""
    return near_duplicates(texts, BOUND)


def with_datasketch(texts: list[str]) -> set[int]:
    """datasketch's MinHash and its LSH index with as many bands, its candidates verified like ours."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, PERMUTATIONS // BANDS))
    found: set[int] = set()
    for at, text in enumerate(texts):
        minhash = MinHash(num_perm=PERMUTATIONS)
        mine = shingles(text)
        minhash.update_batch([shingle.encode() for shingle in mine])
        candidates = (shingles(texts[other]) for other in index.query(minhash))
        if any(len(mine & other) >= BOUND * len(mine | other) for other in candidates):
            found.add(at)
        else:
            index.insert(at, minhash)
    return found


def with_datatrove(texts: list[str]) -> set[int]:
    """datatrove's blocks: signatures of runs of five words, buckets, clusters."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.disable("datatrove")

    config = MinhashConfig(n_grams=5, hash_config=HashConfig(hash_fc="sha1"))
    with tempfile.TemporaryDirectory() as work:
        given = (Document(text=text, id=str(at)) for at, text in enumerate(texts))
        MinhashDedupSignature(f"{work}/signatures", config).run(given, 0, 1)
        for bucket in range(config.num_buckets):
            block = MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)
            block.run(None, bucket, config.num_buckets)
        MinhashDedupCluster(f"{work}/buckets", f"{work}/removed", config).run(None, 0, 1)
        removed = Path(work) / "removed" / "000000.remove"
        return set(np.fromfile(removed, dtype="<u4").tolist()) if removed.is_file() else set()


def measured(search: Callable[[list[str]], set[int]], texts: list[str], copies: set[int]) -> tuple[float, float]:
    """Documents a CPU-second, and the share of the planted copies that was found."""
    start = time.process_time()
    found = search(texts)
    return len(texts) / (time.process_time() - start), len(found & copies) / len(copies)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        import datasketch  # noqa: F401

        name, baseline = "datasketch", with_datasketch
    except ImportError:
        name, baseline = "datatrove", with_datatrove
    texts, copies = documents(options.documents, 1)
    for search in (ours, baseline):
        search(texts[:200])
    speed, recall = measured(ours, texts, copies)
    other_speed, other_recall = measured(baseline, texts, copies)
    figures = {
        "documents": len(texts),
        "documents_per_cpu_second": round(speed),
        "recall": round(recall, 4),
        "baseline": name,
        "baseline_documents_per_cpu_second": round(other_speed),
        "baseline_recall": round(other_recall, 4),
        "ratio": round(speed / other_speed, 2),
    }
    if options.json:
        print(json.dumps(figures))
        return 0
    print(f"{len(texts)} documents, {len(copies)} planted near duplicates (similarity of at least {BOUND})")
    print(f"  pocketloop  {speed:8.0f} documents per CPU-second, recall {recall:.3f}")
    print(f"  {name:<11} {other_speed:8.0f} documents per CPU-second, recall {other_recall:.3f}")
    print(f"  ratio       {speed / other_speed:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
