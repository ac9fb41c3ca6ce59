"""2,000 damaged copies of the small golden files: each becomes a network or a one-line error."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEEDS = (0, 2000)


def test_damaged_files_end_in_a_network_or_an_error():
    # In a process of its own: the most memory that it used is then known.
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "import_fuzz.py"),
                           *map(str, SEEDS)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["networks"] + result["errors"] == SEEDS[1] - SEEDS[0]
    assert result["networks"] >= 100 and result["errors"] >= 100
    assert result["peak_bytes"] < 2 ** 31
