"""The pipelines: `defs/<team>/<pipeline>/defs.yaml` with contracts and SQL beside it, loaded by themselves.

What goes here: instances. What does not: component types (``components``), logic.
"""
