"""Long texts made to measure, with questions whose answers are somewhere in them."""
