"""Tests of ``ct_assets.serving``."""
