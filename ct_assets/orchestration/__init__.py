"""Dagster's vocabulary, written once: partitions, automation, freshness, checks, sensors, resources, runs.

What goes here: what a day is, when something runs, which events tell Dagster what the ledger holds. What does not:
which assets exist (`ct_assets.components`), and any logic about data (adapters and the pure packages).

The rule of this package: **PostgreSQL's ledger is the truth, Dagster's events are its echo.** An asset of a pipeline
emits a materialization for a day when, and only when, the ledger holds a published version of that day that Dagster
has not been told about yet.
"""
