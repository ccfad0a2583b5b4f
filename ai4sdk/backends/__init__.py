"""Plan → submission → running: one file or folder a backend, one table that names them."""
