"""The paper's three questions about a model's sinks, as measurements, and the conditions that settle causality."""
