"""Which model families omnisink is right on: a tiny model of each, the checks made on it, and the support table."""
