"""Methods that only the studies use, to compare the editors of a run with."""
