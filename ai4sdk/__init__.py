"""ai4sdk: describe a piece of machine learning once, in YAML, and run it anywhere."""
