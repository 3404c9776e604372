"""Notices that the loop of a process does not turn any more, and tells the log what each thread does.

It never ends anything: a loop that hangs may go on, and that is in the log, too. `judge.py` decides; it has no thread
and no clock. `watchdog.py` is the thread that looks.
"""
