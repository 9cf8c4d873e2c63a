"""SynthAV: short clips with picture and sound, rendered from a seed, with questions whose answers are known."""
