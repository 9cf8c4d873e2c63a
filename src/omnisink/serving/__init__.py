"""OutRo inside a serving engine: a plug-in for vLLM, loaded by vLLM itself through its entry points."""
