"""Tests of ct_assets.orchestration and components."""
