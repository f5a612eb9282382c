"""Cause the states that a program cannot recover from: plan, check, group, shrink, tell, save."""
