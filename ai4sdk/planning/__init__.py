"""Job → plan: checks, code snapshot, data fingerprints, digest."""
