"""python -m prototxt_import: the same as pspnet."""

import sys

from pspnet_repro.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
