# SPDX-License-Identifier: Apache-2.0
"""Runs notebooks and keeps what they print and draw, for the site to show.

python notebooks/run.py [NAME ...]      # all of them where none is named

The notebooks themselves are stored without outputs, so that a change of one can be
read. What each cell gave goes to notebooks/outputs/NAME.json, with the cell's source:
outputs of another source than the present one are not shown, and a test fails.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import nbclient
import nbformat

NOTEBOOKS = Path(__file__).parent
OUTPUTS = NOTEBOOKS / "outputs"
SHOWN = ("image/png", "text/plain")


def execute(path: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run from top to bottom, in its own folder."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}
    client = nbclient.NotebookClient(notebook, timeout=None, resources=where)
    return client.execute()


def kept(output: nbformat.NotebookNode) -> dict:
    """One output without what differs from run to run for no reason."""
    one = dict(output)
    if one["output_type"] == "execute_result":
        one |= {"output_type": "display_data"}
        del one["execution_count"]
    if "data" in one:
        one["data"] = {kind: one["data"][kind] for kind in SHOWN if kind in one["data"]}
    return one


def record(notebook: nbformat.NotebookNode) -> list[dict]:
    """Source and outputs of each cell of code, warnings and progress left out."""
    return [
        {
            "source": cell.source,
            "outputs": [
                kept(one) for one in cell.outputs if one.get("name") != "stderr"
            ],
        }
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def processor_time() -> float:
    """CPU seconds of the kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run what is named, one after the other, and say how long each took."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description="Run notebooks, keep their outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    for name in parser.parse_args().names or names:
        begun, spent = time.perf_counter(), processor_time()
        cells = record(execute(NOTEBOOKS / f"{name}.ipynb"))
        text = json.dumps(cells, indent=1, ensure_ascii=False)
        (OUTPUTS / f"{name}.json").write_text(text + "\n", "utf-8")
        seconds = time.perf_counter() - begun
        print(f"{name}: {seconds:.0f} s, {processor_time() - spent:.0f} s of CPU")


if __name__ == "__main__":
    main()
