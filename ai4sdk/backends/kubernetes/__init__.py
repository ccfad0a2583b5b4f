"""A cluster that Kubernetes schedules: one Job a run, whose pod starts its tasks and writes down how they end."""
