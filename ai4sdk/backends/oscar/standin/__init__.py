"""A stand-in for an OSCAR cluster on this machine, to rehearse on: its routes, its events, its supervisor. No cluster."""
