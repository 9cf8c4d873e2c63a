"""omnisink inside the real lm-evaluation-harness. Skipped without it; `make test-lm-eval` sets it up."""
