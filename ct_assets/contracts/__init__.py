"""What data must look like: an ODCS file becomes typed columns and rules.

What goes here: the contract model, its loader, the small expression language, coverage. Light to import (no polars,
no pyarrow), because components read contracts at load time.
What does not: bytes, data frames, judging (``ct_assets.ingest`` does that).
"""
