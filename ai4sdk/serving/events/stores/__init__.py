"""Where objects come from and results go: one file a kind of store, one suite of tests for all."""
