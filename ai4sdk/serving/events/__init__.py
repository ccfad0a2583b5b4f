"""Objects are processed as they arrive, each version once. docs/design/0013-events.md says how."""
