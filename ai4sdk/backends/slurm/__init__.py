"""A cluster that Slurm schedules: one batch job a run, which starts its tasks and writes down how they end."""
