"""Lets ``python -m denograd`` run the command."""

from denograd.cli import main

if __name__ == "__main__":
    main()
