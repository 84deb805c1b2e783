"""Tests of ct_assets.sampling."""
