"""Pure functions on tensors: which tokens are sinks, the rotation of head outputs, the relaxed rows."""
