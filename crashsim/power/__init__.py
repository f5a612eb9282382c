"""Failures: what each keeps, when every store is safe from it, and what is lost at every
instant."""
