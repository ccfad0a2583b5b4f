"""A federation of real sites: who is admitted, what may pass, and how messages travel."""
