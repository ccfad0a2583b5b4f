"""This machine: a supervisor process a run, a worker process a task."""
