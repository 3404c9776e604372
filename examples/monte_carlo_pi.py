"""π by throwing darts: the same function on every engine, each with its own chance.

    python examples/monte_carlo_pi.py [DARTS]

A direct view sends a call to all engines and returns their answers in order.
"""

from __future__ import annotations

import math
import random
import sys

import engineroom as er


def hits(darts, seed):
    """How many of `darts` random points of the unit square lie within the circle."""
    chance = random.Random(seed)
    return sum(math.hypot(chance.random(), chance.random()) <= 1 for _ in range(darts))


def main():
    darts = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    with er.Cluster(n=2) as rc:
        per_engine = darts // len(rc)
        found = [engine.apply_async(hits, per_engine, seed) for seed, engine in enumerate(rc)]
        thrown = per_engine * len(rc)
        pi = 4 * sum(result.get() for result in found) / thrown
        error = math.sqrt(pi * (4 - pi) / thrown)
        print(f"π ≈ {pi:.4f} ± {error:.4f} after {thrown:,} darts on {len(rc)} engines")
        assert abs(pi - math.pi) < 6 * error


if __name__ == "__main__":
    main()
