"""`python -m satfs.demo`: the demo origin alone."""

import sys

from satfs.demo.program import main
from satfs.errors import SatfsError

if __name__ == "__main__":
    try:
        sys.exit(main())
    except SatfsError as failure:
        sys.exit(f"satfs.demo: {failure}")
