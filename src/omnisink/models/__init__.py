"""Loading models, and asking them: adapters turn a question into the inputs of a family."""
