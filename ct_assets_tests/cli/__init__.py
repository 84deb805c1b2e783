"""Tests of ct."""
