"""2,000 damaged copies of the small golden files: each becomes a network or a one-line error."""

import json
import os
import subprocess
import sys

from helpers.paths import ROOT, TESTS

SEEDS = (0, 2000)


def test_damaged_files_end_in_a_network_or_an_error():
    # In a process of its own: the most memory that it used is then known.
    done = subprocess.run([sys.executable, "-m", "helpers.import_fuzz", *map(str, SEEDS)],
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": str(TESTS)}, timeout=300,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["networks"] + result["errors"] == SEEDS[1] - SEEDS[0]
    assert result["networks"] >= 100 and result["errors"] >= 100
    assert result["peak_bytes"] < 2 ** 31
