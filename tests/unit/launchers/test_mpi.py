"""What a user is told of an mpiexec that has ended."""

from __future__ import annotations

from engineroom.launchers.mpi import _cause

SSH = "user@node2: Permission denied (publickey)."


def test_the_cause_is_what_ssh_says_and_no_warning_of_mpiexec():
    warning = "[node1:7] plm:ssh: Warning: setpgid(8,7) failed in parent with errno=Permission denied(13)"
    assert _cause(f"{warning}\n{SSH}\n----\nORTE was unable to start the daemons\n") == SSH


def test_the_cause_is_the_rank_that_died_also_if_ssh_failed_then():
    died = "MPI rank 1 (engine 1) died with exit code -9: mpiexec ends all ranks"
    assert _cause(f"{SSH}\n{died}\n") == died
    assert _cause("\n") == ""
