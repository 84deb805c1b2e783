"""Tests of ct_assets.contracts."""
