"""One test for each row of the fault matrix, carrying its id."""
