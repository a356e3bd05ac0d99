"""`python -m lmdeck`: the command line, for shells that do not find the `lmdeck` script."""

from lmdeck.cli import main

if __name__ == "__main__":
    main()
