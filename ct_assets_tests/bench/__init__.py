"""Scripts behind every performance figure: ours, the peer, the ratio, the target, in one run."""
