"""Model families that omnisink is verified on: a tiny model of each, the checks on it, and the support table."""
