"""The commands a user types, run whole."""
