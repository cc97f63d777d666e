"""Jobs of a sweep as arrays of Slurm: submitted, found again, watched to their end."""
