"""``python -m ponder3d.cli``: the command line where the script is not on the path."""

import sys

from ponder3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
