"""A model with code of its own, as its repository has it: saved as a package called `videollama2` by the tests.

One id stands for a whole video. `generate` takes ids and clips of one prompt, refuses embeddings, and returns new
tokens only.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

VIDEO, AUDIO = -201, -202
_SIDE, _CHUNK = 2, 1600


class Videollama2Config(Qwen2Config):
    model_type = "videollama2"


class Videollama2ForCausalLM(Qwen2ForCausalLM):
    config_class = Videollama2Config

    def __init__(self, config):
        super().__init__(config)
        self.model.eyes = nn.Linear(3, config.hidden_size)
        self.model.ears = nn.Linear(_CHUNK, config.hidden_size)
        self.post_init()

    def encode_video(self, frames):
        """(N, H, W, 3) uint8 to (4 N, d)."""
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        cells = nn.functional.adaptive_avg_pool2d(pixels, _SIDE).flatten(2).transpose(1, 2).reshape(-1, 3)
        return self.model.eyes(cells.to(self.device, self.dtype))

    def encode_audio(self, samples):
        """(T,) to one token for every 0.1 s."""
        padded = nn.functional.pad(samples, (0, -len(samples) % _CHUNK))
        return self.model.ears(padded.reshape(-1, _CHUNK).to(self.device, self.dtype))

    def prepare_inputs_labels_for_multimodal(self, input_ids, images):
        """Put features in the places of negative ids."""
        (row,), clips, made = input_ids.tolist(), list(images), []
        for token in row:
            if token >= 0:
                made.append(self.model.embed_tokens(torch.tensor([token])))
                continue
            clip = clips.pop(0)
            if token == VIDEO:
                made.append(self.encode_video(clip["video"]))
            if "audio" in clip:
                made.append(self.encode_audio(clip["audio"]))
        return torch.cat(made)[None]

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, images=None, **kwargs):
        if inputs_embeds is None and images is not None:
            inputs_embeds, input_ids = self.prepare_inputs_labels_for_multimodal(input_ids, images), None
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )

    @torch.no_grad()
    def generate(self, inputs=None, images=None, **kwargs):
        if "inputs_embeds" in kwargs:
            raise NotImplementedError("`inputs_embeds` is not supported")
        embeds = self.prepare_inputs_labels_for_multimodal(inputs, images or [])
        return super().generate(inputs_embeds=embeds, **kwargs)
