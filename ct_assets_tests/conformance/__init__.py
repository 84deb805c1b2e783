"""Foreign corpora and published checks, run against the real path."""
