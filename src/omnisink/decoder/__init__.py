"""The only room that knows how transformers runs attention."""
