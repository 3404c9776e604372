"""Benchmarks anyone can run: `python -m benchmarks`, or `make bench`.

Every figure of ours is measured beside a reference in the same run, because machines are noisy and differ:
read the ratios. One file per question; `suite.py` lists them, `harness.py` asks them, `report.py` writes
`docs/performance.md` from the answers kept in `results/`.
"""
