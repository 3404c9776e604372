"""Engines as jobs of a batch system. `job` is the launcher, `system` says what differs between batch systems.

One file for each batch system has its template and its commands. `script` fills templates in, `options` are the same
for all.
"""
