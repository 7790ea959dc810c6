"""Write scikit-learn's handwritten digits to a plain file: `python export_digits.py digits.csv`.

1,797 lines of 65 integers: 64 grey values from 0 to 16, row by row, and the digit the image shows. The order of the
lines is shuffled once, always in the same way, so that the last fifth can be held out.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def main() -> None:
    images, digits = load_digits(return_X_y=True)
    rows = np.column_stack([images, digits]).astype(int)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    Path(sys.argv[1]).write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()
