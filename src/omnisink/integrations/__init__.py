"""omnisink inside the programs of others, one folder each. vLLM has a room of its own, `omnisink.serving`."""
