"""The model that lm-evaluation-harness runs: its own class for transformers models, under one of our methods."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from tqdm import tqdm

import omnisink
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.batchsize import BatchSize, out_of_memory
from omnisink.methods.registry import parse_one_method, settings_of
from omnisink.methods.shipped import default_outro, default_router
from omnisink.models.adapters.asking import attached
from omnisink.models.continuations import continuation_log_likelihoods
from omnisink.models.finite import finite_logits
from omnisink.models.loading import load_model
from omnisink.questions.likelihood import token_log_likelihoods

#: Settings of the harness's own class that mean something for a model that is loaded already.
_ITS_OWN = (
    "add_bos_token",
    "chat_template_args",
    "enable_thinking",
    "max_length",
    "prefix_token_id",
    "think_end_token",
    "truncation",
)
#: What the harness asks about: something to cache the answer by or None, tokens before, and tokens to score.
Request: TypeAlias = tuple[Any, list[int], list[int]]
#: Tokens before, and tokens to score.
_Pair: TypeAlias = tuple[list[int], list[int]]

#: The key under which a cache says whose answers it holds; the harness's own keys are hashes.
_OWNER = "omnisink"

_LOGGER = logging.getLogger(__name__)


class OmnisinkLM(HFLM):  # type: ignore[misc]
    """A language model under one method, for lm-evaluation-harness.

    Parameters
    ----------
    pretrained : str
        Model as in `load_model`: ``"smollm2-135m"``, a local folder, or a name on the Hub.
    method : str
        ``"baseline"``, ``"outro"``, ``"outro:gamma=0.3"``, ``"file.py::Class"``, ...; one at a time.
    batch_size : int
        Requests at once. Where memory runs out while likelihoods are computed, it is halved.
    device : str, optional
        None is a CUDA device where there is one, as everywhere in the harness, else the CPU.
    dtype, attn_implementation, revision, trust_remote_code, download
        As for `load_model`. Nothing is downloaded, and no code of a checkpoint is run, unless it is said here.
    max_batch_size : int, optional
        Of no meaning here; the harness gives it to every model.
    **its_own
        Settings of the harness's class: ``max_length``, ``add_bos_token``, ``prefix_token_id``, ``truncation``,
        ``chat_template_args``, ``enable_thinking``, ``think_end_token``.

    Raises
    ------
    OmnisinkError
        If a setting is unknown or wrong, the model cannot be loaded, or the method is refused on it.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        method: str = "baseline",
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        download: bool = False,
        max_batch_size: int | None = None,
        **its_own: Any,
    ) -> None:
        if pretrained is None:
            raise OmnisinkError("model_args: say which model, as in pretrained=smollm2-135m")
        if unknown := sorted(its_own.keys() - set(_ITS_OWN)):
            of_method = unknown[0] in ("gamma", "tau")
            hint = f"write method=outro:{unknown[0]}=..." if of_method else "docs/lm-eval.md lists them"
            raise OmnisinkError(f"model_args: there is no setting {unknown[0]!r}; {hint}")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise OmnisinkError(f"the batch size must be a positive number, got {batch_size!r}")
        for name, value in (("trust_remote_code", trust_remote_code), ("download", download)):
            if not isinstance(value, bool):  # The text "no" would be taken for true.
                raise OmnisinkError(f"model_args: {name} must be True or False, got {value!r}")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise OmnisinkError("omnisink runs in one process of lm-evaluation-harness: start it without a launcher")
        name = str(pretrained)
        self.method = parse_one_method(str(method), [default_outro(name), default_router(name)])
        self.loaded = load_model(
            name,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            revision=None if revision is None else str(revision),
            download=download,
        )
        with attached(self.method, self.loaded, {}):
            pass  # A method that is refused on this model is refused now, not after the requests are built.
        super().__init__(
            self.loaded.model,
            tokenizer=self.loaded.tokenizer,
            backend="causal",
            batch_size=int(batch_size),
            **its_own,
        )
        self.pretrained, self.revision = name, self.loaded.revision or "main"
        self._size = BatchSize(int(batch_size))
        self._texts = False

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness writes beside results: the weights, and the method with all its settings.

        Returns
        -------
        dict
            Plain data. The network is not asked.
        """
        model = self.loaded.model
        return {
            "model_num_parameters": model.num_parameters(),
            "model_dtype": model.dtype,
            "model_revision": self.revision,
            "model_sha": self.loaded.revision or "",
            "model_source": self.loaded.source,
            "omnisink_method": settings_of(self.method),
            "omnisink_version": omnisink.__version__,
        }

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Take the harness's cache of answers (``--use_cache``), if its answers are those of this model and method.

        The harness finds an answer by the question only, whatever model gave it.

        Parameters
        ----------
        cache_hook : lm_eval.api.model.CacheHook
            What answers are stored with.

        Raises
        ------
        OmnisinkError
            If the file holds answers of another model or method.
        """
        super().set_cache_hook(cache_hook)
        stored = cache_hook.dbdict
        if stored is None:
            return
        own = json.dumps([self.pretrained, self.get_model_info()], default=str, sort_keys=True)
        if len(stored) and stored.get(_OWNER) != own:
            raise OmnisinkError(
                "the file of --use_cache holds answers of another model, method or version: give each its own file"
            )
        stored[_OWNER] = own

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return log-likelihoods of whole texts, for perplexities.

        A text has no prompt, so a method acts on all of it as on a prompt, in one pass.

        Parameters
        ----------
        requests : sequence of lm_eval.api.instance.Instance
            With a text each; longer ones than the model's context are cut into windows.
        disable_tqdm : bool
            Whether to show no progress.

        Returns
        -------
        list of float
            In nats.
        """
        self._texts = True
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        finally:
            self._texts = False

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Return for each request the log-likelihood of its continuation, and whether each token was the likeliest."""
        asked = [self._fit(context, continuation) for _, context, continuation in requests]
        shared: dict[Any, list[int]] = {}
        for i, (context, continuation) in enumerate(asked):  # Those that differ in their last token only need one run.
            shared.setdefault((tuple(context), tuple(continuation[:-1])), []).append(i)
        left = sorted(shared.values(), key=lambda same: [-len(part) for part in asked[same[0]]])
        found: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(asked), desc="omnisink", disable=disable_tqdm or self.rank != 0) as bar:
            while left:
                batch = left[: self._size.size]
                rows = self._rows([asked[same[0]] for same in batch])
                if rows is None:
                    continue
                left = left[len(batch) :]
                for same, row in zip(batch, rows, strict=True):
                    for i in same:
                        found[i] = _score(row, asked[i][1])
                        if (key := requests[i][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", key, found[i])
                        bar.update()
        return [found[i] for i in range(len(asked))]

    def _fit(self, context: list[int], continuation: list[int]) -> _Pair:
        """Cut a context from the left where the model's own is too short for both."""
        over = len(context) + len(continuation) - (self.max_length + 1)
        if len(continuation) > self.max_length:
            raise OmnisinkError(
                f"a continuation has {len(continuation)} tokens, more than the model's context of {self.max_length}"
            )
        if over > 0:
            _LOGGER.warning("a context is %d tokens too long for the model, and is cut from the left", over)
        return context[max(over, 0) :], continuation

    def _rows(self, batch: Sequence[_Pair]) -> list[Tensor] | None:
        """Return (N, V) log-likelihoods for each pair; None where memory ran out and a smaller batch may do."""
        try:
            with torch.inference_mode():
                return self._rows_of_texts(batch) if self._texts else self._rows_of_continuations(batch)
        except Exception as error:
            if not (out_of_memory(error) and len(batch) > 1):
                raise
        # Here, unlike inside, nothing holds on to the tensors of the batch.
        self._size.too_large(len(batch))
        return None

    def _rows_of_continuations(self, batch: Sequence[_Pair]) -> list[Tensor]:
        inputs = self._padded([context for context, _ in batch], left=True)
        with attached(self.method, self.loaded, inputs):
            return continuation_log_likelihoods(self.loaded, inputs, [continuation for _, continuation in batch])

    def _rows_of_texts(self, batch: Sequence[_Pair]) -> list[Tensor]:
        inputs = self._padded([context + continuation[:-1] for context, continuation in batch], left=False)
        with attached(self.method, self.loaded, inputs):
            rows = self.loaded.model(**inputs, use_cache=False).logits.float().log_softmax(dim=-1)
        return [
            row[len(context) - 1 :][: len(continuation)]
            for row, (context, continuation) in zip(rows, batch, strict=True)
        ]

    def _padded(self, rows: Sequence[list[int]], *, left: bool) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, (B, S) long."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(longest - len(row), None) if left else slice(len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        """Generate a batch of answers under the method."""
        inputs = {"input_ids": context, "attention_mask": options.get("attention_mask")}
        with torch.inference_mode(), attached(self.method, self.loaded, inputs), finite_logits(self.loaded.model):
            return super()._model_generate(context, max_length, stop, **options)


def _score(rows: Tensor, continuation: Sequence[int]) -> tuple[float, bool]:
    """Return the log-likelihood of a continuation in nats, and whether each of its tokens was the likeliest."""
    wanted = torch.tensor(continuation, device=rows.device)
    total = float(token_log_likelihoods(rows, wanted).sum())
    if total != total:
        raise OmnisinkError(
            "a log-likelihood is not a number: the model's states overflow, or its weights are damaged"
        )
    return total, bool((rows.argmax(dim=-1) == wanted).all())
