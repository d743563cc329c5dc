"""`python -m denograd.meta ...` is `denograd meta-train ...`."""

import sys

from denograd.cli import main

if __name__ == "__main__":
    main(["meta-train", *sys.argv[1:]])
