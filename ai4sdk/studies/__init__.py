"""Many points of one config: planned at once, run side by side, never twice."""
