"""Tests of streams in PostgreSQL."""
