"""``python -m virtflow``: the command line."""

import sys

from virtflow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
