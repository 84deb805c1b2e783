"""Tests of ct_assets.features."""
