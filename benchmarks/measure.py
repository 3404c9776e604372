"""One answer of one subject, as JSON on the last line of stdout.

The harness starts this for every measurement. It is useful alone, too, under py-spy for one:
`python -m benchmarks.measure noop sqlite 50000`.
"""

from __future__ import annotations

import json
import sys

from .suite import BENCHMARKS


def main() -> None:
    name, subject, size = sys.argv[1:]
    subjects = {s.__name__: s for s in BENCHMARKS[name].subjects}
    print(json.dumps(subjects[subject](int(size))))


if __name__ == "__main__":
    main()
