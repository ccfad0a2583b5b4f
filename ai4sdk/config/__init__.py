"""YAML layers and overrides → a validated `Job`, each value knowing where it came from."""
