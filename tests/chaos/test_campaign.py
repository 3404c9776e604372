"""The kill campaign, shortened: see campaign.py."""

from pathlib import Path

import psutil
import pytest

from .campaign import Campaign


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_killed_nothing_is_lost(seed: int, tmp_path: Path):
    campaign = Campaign(tmp_path, seed)
    try:
        campaign.round(300)
        campaign.round(300)
    finally:
        campaign.close()
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert campaign.killed["engine"] + campaign.killed["controller"] > 0, "the fault was never injected"
