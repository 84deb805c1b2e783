"""Streams in PostgreSQL: state and fence, accepted events, dead letters, online tables, definition versions.

What goes here: what a worker commits and what readers get back. What does not: sources of events (``adapters.events``),
semantics (``ct_assets.streaming``), Feast's interfaces (``adapters.feast``).
"""
