"""From an experiment to its History: programs are made of it, and the layers wired together."""
