"""Where the harness lies, where it leaves its files, and how it starts a process of itself.

In a checkout it is the package `experiments`, installed it is `pspnet_repro.experiments`.
"""

import os
import sys
from pathlib import Path

from pspnet_repro.defaults import IN_CHECKOUT, ROOT

# Of runs and of drawn scenes: in the checkout, else in the folder one stands in.
RUNS_FOLDER = ROOT / "experiments" / "runs" if IN_CHECKOUT else Path("runs")
CACHE_FOLDER = ROOT / "cache" if IN_CHECKOUT else RUNS_FOLDER / "cache"


def program(module: str, *words: str) -> list[str]:
    """The command line that calls `main` of a module of this package, with this process's path for
    imports: `python -m` would import from the folder one stands in first."""
    paths = [os.path.abspath(path) for path in sys.path]
    code = (f"import sys; sys.path[:] = {paths!r}; sys.argv[0] = {module!r}; "
            f"from {__package__}.{module} import main; sys.exit(main())")
    return [sys.executable, "-c", code, *words]
