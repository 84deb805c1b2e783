"""The outside world behind ports: PostgreSQL, storage, landing area, ledger, clock.

What goes here: code that talks to a database, a disk, an object store or the clock, and the ledger's transactions.
What does not: rules about data (contracts, ingest), Dagster (orchestration), printing (cli).
"""
