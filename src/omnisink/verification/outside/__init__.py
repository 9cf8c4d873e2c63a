"""Models of code that is not transformers' own, as checkpoints bring it with them: the stand-ins that are verified."""
