"""The command line: `ipcluster`, `ipcontroller`, `ipengine`, `engineroom`. No other part imports it."""
