"""Model package → endpoint."""
