"""Figures with Matplotlib, from arrays alone: one file a figure. Results draw themselves with these through `plot`."""
