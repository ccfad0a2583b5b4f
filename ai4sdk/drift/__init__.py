"""Drift: whether data are still what a model was trained on.

`sketch` summarises a feature, `compare` tests new values against it, `reference` is what a package holds, `measure`
what training takes it from, `check` and `page` are behind ``ai4sdk drift check``, and `watch` is what a serving
process feeds.
"""
