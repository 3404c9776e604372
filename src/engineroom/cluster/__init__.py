"""Clusters: a controller and its engines, started, found and stopped together.

`cluster` is the class that users meet. `controller_process` and `engine_sets` start its processes, and start those
again that were killed; `commands` says with which command lines. `cluster_files` reads the files of clusters, and
`found_cluster` says what of a cluster runs.
"""
