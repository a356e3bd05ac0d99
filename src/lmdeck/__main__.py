"""`python -m lmdeck`: the command line, where its folder is not on the path."""

from lmdeck.cli import main

if __name__ == "__main__":
    main()
