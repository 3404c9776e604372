"""Tasks that take their time, and what they make of being interrupted."""

import ctypes
import os
import time


def sleep_for(seconds):
    time.sleep(seconds)
    return "slept"


def spin_for(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


def catch(seconds):
    try:
        time.sleep(seconds)
    except KeyboardInterrupt as interrupt:
        return f"caught {interrupt}"


def wrap(seconds):
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        raise ValueError("mine") from None


def ignore_for_ever():
    while True:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            continue


def hold_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "held"


def pid():
    return os.getpid()
