"""Tests of the stream worker as a process."""
