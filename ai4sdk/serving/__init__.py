"""Trained models behind HTTP: a light front, and a process for each model. docs/design/0011-serving.md draws it."""
