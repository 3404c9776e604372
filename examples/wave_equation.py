"""A vibrating membrane: the wave equation on a grid whose rows are scattered over the engines.

    python examples/wave_equation.py [STEPS]

Each engine holds a block of rows, and one row of each neighbour. At each step the engines compute their blocks, and
the rows at the borders of blocks change places. At the end the rows are gathered and compared with a run in this
process. Needs numpy. It runs with `import ipyparallel as ipp`, too.
"""

from __future__ import annotations

import sys

import numpy as np

import engineroom as ipp

#: Points of the grid along each side; the square of (time step × speed / distance of points).
POINTS, COURANT = 64, 0.25


def bump():
    """The membrane at the beginning: a bump in the middle, at rest."""
    x, y = np.meshgrid(np.linspace(0, 1, POINTS), np.linspace(0, 1, POINTS))
    membrane = np.exp(-100 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    membrane[[0, -1], :] = membrane[:, [0, -1]] = 0
    return membrane


def next_rows(now, before):
    """The inner rows of a block after one step; `now` has one more row above, and one below."""
    curve = now[:-2, 1:-1] + now[2:, 1:-1] + now[1:-1, :-2] + now[1:-1, 2:] - 4 * now[1:-1, 1:-1]
    rows = np.zeros_like(before)
    rows[:, 1:-1] = 2 * now[1:-1, 1:-1] - before[:, 1:-1] + COURANT * curve
    return rows


def step(now, above, below):
    """One step on an engine: `u` and `before` are in its namespace. Returns the rows at the block's borders."""
    global u, before
    before, u = now, step_rows(np.vstack([above, now, below]), before)  # noqa: F821 - pushed
    if is_first:  # noqa: F821 - the rim of the membrane does not move
        u[0] = 0
    if is_last:  # noqa: F821
        u[-1] = 0
    return u[0], u[-1]


def run_here(steps):
    """The same in this process."""
    now, before = bump(), bump()
    rim = np.zeros((1, POINTS))
    for _ in range(steps):
        after = next_rows(np.vstack([rim, now, rim]), before)
        after[[0, -1]] = 0
        now, before = after, now
    return now


def run_on(view, steps):
    """The membrane after some steps on the engines of a view."""
    count = len(view)
    view.execute("import numpy as np", block=True)
    view.push({"step_rows": next_rows, "COURANT": COURANT}, block=True)
    view.scatter("u", bump(), block=True)
    view.scatter("before", bump(), block=True)
    view.scatter("is_first", [True] + [False] * (count - 1), flatten=True, block=True)
    view.scatter("is_last", [False] * (count - 1) + [True], flatten=True, block=True)
    rim = np.zeros(POINTS)
    borders = view.apply_sync(lambda block: (block[0], block[-1]), ipp.Reference("u"))
    for _ in range(steps):
        view.scatter("above", [rim, *(last for _, last in borders[:-1])], flatten=True)
        view.scatter("below", [*(first for first, _ in borders[1:]), rim], flatten=True)
        borders = view.apply_sync(step, ipp.Reference("u"), ipp.Reference("above"), ipp.Reference("below"))
    return view.gather("u", block=True)


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with ipp.Cluster(n=2) as rc:
        found = run_on(rc[:], steps)
    expected = run_here(steps)
    print(f"{steps} steps on {POINTS}×{POINTS} points; the highest point is {found.max():.4f}")
    print(f"the largest difference to a run in one process is {abs(found - expected).max():.1e}")


if __name__ == "__main__":
    main()
