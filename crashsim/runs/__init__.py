"""A run: what is simulated once and asked anything, and the folder in which it is kept."""
