"""A Ray cluster: one Ray job a run, which starts its tasks and writes down how they end."""
