"""The commands of `engineroom`: they look at task records and act on them. `records` is what they share."""
