"""Methods on a model, one file each, and what they report."""
