"""Rebuilding what a cut leaves, in real mapped files, and holding it against the calculation."""
