"""Experiment files: from YAML to typed cases, with every mistake at its line (`loader.load`)."""
