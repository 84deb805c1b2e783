"""Tests of ct_assets.training."""
