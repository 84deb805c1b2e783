"""Tests of ct_assets.ingest."""
