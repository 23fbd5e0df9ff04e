"""What each training method does on the embedded base, held out: writes docs/methods.md and docs/methods.svg.

    python benchmarks/methods.py [--only direct] [--any-code] [--kept] [--out docs]

Trainings and measurements are kept under POCKETLOOP_HOME/methods: a run that was killed goes on, and what did not
change is not trained again. `--any-code` also takes results that another version of the code gave.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import methods_intent as intent
import methods_preferences as preferences
from methods_findings import Finding
from methods_lab import Lab, NotMeasured
from methods_report import figure, page

from pocketloop.contracts.files import atomic_file
from pocketloop.contracts.home import Home, project_root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="EXPERIMENT", help="run these, and write no page")
    parser.add_argument("--any-code", action="store_true", help="take results of other versions of the code")
    parser.add_argument("--kept", action="store_true", help="train nothing: write the page from what is kept")
    parser.add_argument("--out", type=Path, default=project_root() / "docs")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before the first model is loaded: processor seconds are of one thread
    folder = Home().root / "methods"

    @cache
    def lab(adapter: Literal["functions", "intent"]) -> Lab:
        return Lab(folder, adapter, options.any_code, options.kept)

    @cache
    def known(adapter: Literal["functions", "intent"]) -> preferences.Preferences:
        return preferences.Preferences(lab(adapter))

    wanted: dict[str, Callable[[], Finding]] = {
        "adapters": lambda: intent.adapters(lab("intent")),
        "replay": lambda: intent.continued(lab("intent")),
        "direct": lambda: preferences.direct(known("intent")),
        "ppo": lambda: preferences.rewarded(known("intent")),
        "grpo": lambda: preferences.grouped(known("intent"), "grpo"),
        "rloo": lambda: preferences.grouped(known("intent"), "rloo"),
        "distilled": lambda: preferences.distilled(known("intent")),
        "direct-functions": lambda: preferences.direct(known("functions")),
        "grpo-functions": lambda: preferences.grouped(known("functions"), "grpo"),
    }
    unknown = set(options.only or []) - set(wanted)
    if unknown:
        parser.error(f"no experiment {', '.join(sorted(unknown))}: there are {', '.join(wanted)}")
    findings: list[Finding] = []
    missing: dict[str, str] = {}
    for name, run in wanted.items():
        if not options.only or name in options.only:
            try:
                finding = run()
            except NotMeasured:
                missing[name] = preferences.REMARKS.get(name, "")
                continue
            findings.append(finding)
            for claim in finding.claims:
                print(
                    f"  {claim.verdict:14} {claim.difference:+.3f} [{claim.low:+.3f}, {claim.high:+.3f}]  {claim.text}"
                )
    if not options.only:
        write(options.out / "methods.md", page(findings, missing, "tiny"))
        write(options.out / "methods.svg", figure(findings))
        print(f"wrote {options.out / 'methods.md'} and {options.out / 'methods.svg'}")
    return 0


def write(path: Path, text: str) -> None:
    """Write the whole text or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
