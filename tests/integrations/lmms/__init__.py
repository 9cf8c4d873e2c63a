"""omnisink inside the real lmms-eval. Skipped without it; `make test-lmms` sets up an environment that has it."""
