"""Module paths and functions that programs written for ipyparallel import. No other part of the package uses them.

`paths` says which module an old path stands for. The other modules here hold what has no home elsewhere.
"""
