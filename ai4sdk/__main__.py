"""python -m ai4sdk."""

import sys

from ai4sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
