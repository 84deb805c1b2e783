"""Tests of Feast's plug-ins, with the real Feast."""
