"""Files of states on the command line: `python -m optimisers show FILE`, `python -m optimisers diff A B`."""

import sys

from ._files._inspect import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
