"""A plain implementation of the published mathematics of RAM++, to compare ramflow with."""
