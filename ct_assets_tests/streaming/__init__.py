"""Tests of ct_assets.streaming."""
