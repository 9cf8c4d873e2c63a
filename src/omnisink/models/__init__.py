"""Loading models, and the families that omnisink knows how to verify."""
