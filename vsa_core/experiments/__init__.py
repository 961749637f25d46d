"""Studies that can be run again from a seed: synthetic tables with known truth, and real data."""
