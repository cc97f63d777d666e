"""All measurements of sweeps as one table, for notebooks and other programs."""
