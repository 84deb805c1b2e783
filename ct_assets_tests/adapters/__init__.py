"""Tests of ct_assets.adapters on real components."""
