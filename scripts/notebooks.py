"""Sync the notebooks' pairs, execute them on a demo store, and keep small, clean outputs.

    python scripts/notebooks.py                 # all, in order, on one temporary home
    python scripts/notebooks.py 04              # those whose names begin so, alone
    python scripts/notebooks.py --check         # write nothing; fail where a pair is out of step or a cell fails

The text of a notebook is its .py file: its cells replace those of the .ipynb. Outputs lose what changes from run to run
(times, execution counts' order, standard error) and what belongs to a machine (its paths).
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
MOST_BYTES = 200_000
CELL_SECONDS = 1800


def pairs(names: list[str]) -> list[Path]:
    """The .py files of the notebooks whose names begin with one of `names`, in order; all without any."""
    found = sorted(path for path in FOLDER.glob("[0-9]*.py") if not names or path.stem.startswith(tuple(names)))
    if not found:
        raise SystemExit(f"no notebook begins with {' or '.join(names)}; there are {', '.join(_stems())}")
    return found


def out_of_step(path: Path) -> str:
    """Why the pair of this .py file is out of step; empty where both hold the same cells."""
    import jupytext

    partner = path.with_suffix(".ipynb")
    if not partner.is_file():
        return f"{partner.name} is missing"
    ours, theirs = ([(cell.cell_type, cell.source) for cell in jupytext.read(p).cells] for p in (path, partner))
    if ours == theirs:
        return ""
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return f"{path.name} and {partner.name} differ from cell {at + 1} on: run `python scripts/notebooks.py {path.stem}`"


def fix_key(home: Path) -> None:
    """Give the notebooks' home in `home` a key that is no secret: what is learnt from pseudonyms is the same each time.

    A home's key is drawn at random otherwise.
    """
    keys = home / "notebooks" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    path = keys / "pseudonyms.key"
    path.touch(mode=0o600)
    path.write_bytes(b"the same for every run of these ")


def execute(path: Path, home: Path) -> Any:
    """The notebook of this .py file with clean outputs, executed with POCKETLOOP_HOME in `home`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number + 1}"
    environment = {**os.environ, "POCKETLOOP_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    for name in ("MLFLOW_TRACKING_URI", "ZENML_CONFIG_PATH"):
        environment.pop(name, None)
    environment |= {"IPYTHONDIR": str(home / "ipython")}
    environment.setdefault("OMP_NUM_THREADS", "1")
    NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute(env=environment)
    clean(notebook, {str(home): "$POCKETLOOP_HOME", str(ROOT): ".", tempfile.gettempdir(): "$TMPDIR"})
    return notebook


def clean(notebook: Any, paths: dict[str, str]) -> None:
    """Take out of a notebook what changes from run to run; `paths` are replaced by what they stand for.

    Raises:
        SystemExit: more than `MOST_BYTES` of outputs.
    """
    count = 0
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            output.pop("execution_count", None)
            if output.output_type == "execute_result":
                output.execution_count = count
            for holder, key in _texts(output):
                holder[key] = _plain(holder[key], paths)
    notebook.metadata = {key: notebook.metadata[key] for key in ("jupytext", "kernelspec") if key in notebook.metadata}
    size = sum(len(str(output)) for cell in notebook.cells for output in cell.get("outputs", ()))
    if size > MOST_BYTES:
        raise SystemExit(f"outputs of {size:,} characters, more than {MOST_BYTES:,}: show less")


def _texts(output: Any) -> list[tuple[Any, str]]:
    """Where an output holds text: a mapping and the key in it."""
    if output.output_type == "stream":
        return [(output, "text")]
    return [(output.get("data", {}), kind) for kind in output.get("data", {})]


def _plain(text: str, paths: dict[str, str]) -> str:
    for path, name in paths.items():
        text = re.sub(rf"{re.escape(path)}(?![\w-])", name.replace("\\", r"\\"), text)
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def _stems() -> list[str]:
    return [path.stem for path in sorted(FOLDER.glob("[0-9]*.py"))]


def main() -> None:
    """Execute, and write or check."""
    import jupytext
    from nbclient.exceptions import CellExecutionError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names, such as 03")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something is out of step")
    options = parser.parse_args()
    chosen = pairs(options.names)
    problems = [found for path in chosen if options.check and (found := out_of_step(path))]
    with tempfile.TemporaryDirectory(prefix="pocketloop-notebooks-") as home:
        fix_key(Path(home))
        for path in chosen:
            print(f"{path.stem} …", flush=True)
            try:
                notebook = execute(path, Path(home))
            except CellExecutionError as error:
                problems.append(f"{path.name}: {error}")
                continue
            if not options.check:
                jupytext.write(notebook, path.with_suffix(".ipynb"))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
