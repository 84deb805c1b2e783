"""Tests of ct_assets.platform."""
