"""A module that does not load."""

print("sinking")
raise ImportError("libmud.so.3: cannot open shared object file")
