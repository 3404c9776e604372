"""`%px` and its kin in an IPython session: this script types the cells that you would.

    python examples/magics.py

In a notebook or a terminal, write the cells themselves; `er.Client()` brings the magics with it.
"""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

CELLS = [
    "import engineroom as er",
    "cluster = er.Cluster(n=2)",
    "rc = cluster.start_and_connect_sync(activate=True)",
    "%px import os, math",
    "rc[:].scatter('number', [4, 9], flatten=True, block=True)",
    "%px math.sqrt(number)",
    "%%px --targets 1\nprint('only here:', number)",
    "%%px --noblock\nnumber + 1",
    "%pxresult",
    "%%px --local --out both\ndouble = lambda x: 2 * x\ndouble(21)",
    "both.get()",
    "%autopx",
    "square = number ** 2",
    "%autopx",
    "rc[:]['square']",
    "cluster.stop_cluster_sync()",
]


def main():
    shell = InteractiveShell.instance(colors="nocolor")
    for number, cell in enumerate(CELLS, 1):
        lines = cell.splitlines()
        print("\n".join([f"In [{number}]: {lines[0]}", *(f"   ...: {line}" for line in lines[1:])]), flush=True)
        done = shell.run_cell(cell, store_history=True)
        done.raise_error()


if __name__ == "__main__":
    main()
