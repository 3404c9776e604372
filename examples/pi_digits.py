"""The digits of π, found in parallel and counted: are they as frequent as chance would have them?

    python examples/pi_digits.py [DIGITS]

Each task finds a piece of the hexadecimal digits by itself, with the formula of Bailey, Borwein and Plouffe: no task
needs the digits before its own. `imap` gives the pieces in order while later ones are still computed.
"""

from __future__ import annotations

import math
import sys
from collections import Counter

from show import count, heading, table

import engineroom as er

#: Digits that one task finds.
PIECE = 50
#: More than this many bits of a sum of fractions are exact enough for a piece.
BITS = 4 * PIECE + 64


def piece(start):
    """The hexadecimal digits of π from number `start` on, counted from 0, which is the first one behind the point."""
    one = 1 << BITS

    def sum_of(j):
        """The fraction of the sum over k of 16**(start - k) / (8 k + j), times `one`."""
        total = 0
        for k in range(start + 1):
            total += (pow(16, start - k, 8 * k + j) << BITS) // (8 * k + j)
        for k in range(start + 1, start + BITS // 4):
            total += (one >> 4 * (k - start)) // (8 * k + j)
        return total

    fraction = (4 * sum_of(1) - 2 * sum_of(4) - sum_of(5) - sum_of(6)) % one
    digits = fraction >> (BITS - 4 * PIECE)
    return f"{digits:0{PIECE}x}"


def main():
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with er.Cluster(n=2) as rc:
        view = rc.load_balanced_view(label="pi")
        digits = "".join(view.imap(piece, range(0, wanted, PIECE)))[:wanted]
        tasks = rc.db_count({"label": "pi"})
    heading(f"π in hexadecimal digits: {count(wanted, 'digit')} in {count(tasks, 'task')}")
    print(f"  3.{digits[:60]}…")
    found = Counter(digits)
    expected = wanted / 16
    rows = [(digit, found[digit], (found[digit] - expected) / math.sqrt(expected)) for digit in sorted(found)]
    table(("digit", "found", "deviation"), rows)
    chi = sum((found[d] - expected) ** 2 / expected for d in "0123456789abcdef")
    print(f"\nχ² = {chi:.1f}, where chance gives 15 ± 5.5")


if __name__ == "__main__":
    main()
