"""The run directory: layout, states, events."""
