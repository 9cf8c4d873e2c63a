"""What the records of a run say: paired statistics, cost, tables and words."""
