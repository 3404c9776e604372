"""Large buffers in memory that several processes of a host map: one copy, however many of them use it.

`buffer.py` is a buffer that one process hands to another as a file descriptor. `pool.py` makes them, and uses their
pages again. How descriptors travel is the transport's matter.
"""
