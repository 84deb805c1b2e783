"""The stream worker: a supervised process that turns a topic into committed windows, effectively once.

What goes here: the loop, the session of held partitions, commits in the background, metrics, supervision.
What does not: what an event means (``ct_assets.streaming``), where messages come from (``adapters.events``), how state
is stored (``adapters.stream``).
"""
