"""Where the harness leaves its files: in a checkout, else in the folder one stands in."""

from pathlib import Path

from pspnet_repro.defaults import IN_CHECKOUT, ROOT

RUNS_FOLDER = ROOT / "experiments" / "runs" if IN_CHECKOUT else Path("runs")
CACHE_FOLDER = ROOT / "cache" if IN_CHECKOUT else RUNS_FOLDER / "cache"
