"""Sources and sinks of events: one suite on the embedded log and on a real broker."""
