"""Models in GGUF files, unpacked into ordinary weights: `header` reads, `architectures` names, `load` builds."""
