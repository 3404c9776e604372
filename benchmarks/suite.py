"""All benchmarks, in the order of the report."""

from __future__ import annotations

from . import core, core_memory, data, latency, makespan, map, memory, million, noop, queries, startup
from .harness import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (noop, map, latency, makespan, startup, memory, data, queries, million, core, core_memory)
}
