"""How SmolOmni was made: a restartable program; see docs/smolomni.md."""
