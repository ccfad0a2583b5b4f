"""A stand-in for an OSCAR cluster, to rehearse on: its routes, its events, its supervisor. It is no cluster."""
