"""All benchmarks, in the order of the report."""

from __future__ import annotations

from . import (
    backends,
    classic,
    core,
    core_memory,
    data,
    data_copies,
    disturbed,
    footprint,
    hosts,
    latency,
    makespan,
    many_hosts,
    map,
    memory,
    million,
    noop,
    queries,
    startup,
)
from .harness import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        noop,
        map,
        classic,
        latency,
        makespan,
        startup,
        memory,
        data,
        data_copies,
        hosts,
        many_hosts,
        queries,
        million,
        disturbed,
        backends,
        footprint,
        core,
        core_memory,
    )
}
