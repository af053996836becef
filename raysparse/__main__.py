"""`python -m raysparse`: the command, where its script is not on the path."""

from raysparse.cli import main

main()
