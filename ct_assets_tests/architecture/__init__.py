"""Conventions as tests: their messages name the fix."""
