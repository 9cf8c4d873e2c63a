"""What a run leaves behind: append-only records, and the statistics made of them."""
