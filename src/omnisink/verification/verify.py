"""Run a method on the tiny model of every family, and write down what holds.

The method is handed in: this room lies below the one where methods are.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import UnsupportedModelError
from omnisink.verification.compare import NEW_TOKENS, Attach, compare, problem_of, repeatable, same
from omnisink.verification.family import AbsentClassError, Family
from omnisink.verification.tiny import planted_positions

_LENGTHS = (16, 11)


@dataclass
class Result:
    """The result of verifying one family.

    Attributes
    ----------
    name, title, example : str
        The family's.
    modalities : tuple of str
        The family's.
    expectation : str
        Promise of the family.
    outcome : str
        ``"supported"``; ``"partial"``, where layers were left out and reported; ``"refused"``; ``"failed"``; or
        ``"absent"``, where the installed transformers has no such model.
    backends : tuple of str
        Attention implementations that passed.
    skipped_layers : dict of int to str
        Layers left out on the text prompts, with the reason.
    refusal : str
        The message of a refusal, or which class is absent.
    problems : list of str
        Checks that failed.
    note : str
        The family's.
    seconds : float
        Duration of the verification.
    """

    name: str
    title: str
    example: str
    modalities: tuple[str, ...]
    expectation: str
    outcome: str = "failed"
    backends: tuple[str, ...] = ()
    skipped_layers: dict[int, str] = field(default_factory=dict)
    refusal: str = ""
    problems: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    @property
    def as_expected(self) -> bool:
        """Whether the outcome is the one promised. A model that transformers does not have counts as well."""
        return self.outcome in (self.expectation, "absent")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {**asdict(self), "as_expected": self.as_expected}


def verify_all(
    families: Iterable[Family],
    attach: Attach,
    progress: Callable[[str], None] | None = None,
    device: str | torch.device = "cpu",
) -> list[Result]:
    """Verify families one after the other.

    Parameters
    ----------
    families : iterable of Family
        The family.
    attach : callable
        The method: ``with attach(model) as trace``.
    progress : callable, optional
        Called with the title of each family before it is verified.
    device : str or torch.device
        Device of the models.

    Returns
    -------
    list of Result
        The results in the order of the families.
    """
    results = []
    for family in families:
        if progress is not None:
            progress(family.title)
        results.append(verify(family, attach, device))
    return results


def verify(family: Family, attach: Attach, device: str | torch.device = "cpu") -> Result:
    """Run one family's tiny model on every backend it names.

    On each, a left-padded batch of two prompts is prefilled and continued. The sinks must be the planted tokens,
    tokens must have been rotated, each prompt must give what it gives by itself, and after the block the model must
    give the same outputs as before, to the bit. A multimodal prompt must pass through the towers and be changed too.
    Backends must agree with the first.

    Parameters
    ----------
    family : Family
        The family.
    attach : callable
        The method: ``with attach(model) as trace``.
    device : str or torch.device
        Device of the model. Flex attention is not compiled on any device.

    Returns
    -------
    Result
        The checks that held and those that did not. A failure is a result too and is not raised.
    """
    result = Result(family.name, family.title, family.example, family.modalities, family.expectation, note=family.note)
    begin = time.perf_counter()
    passed: list[str] = []
    first: list[Tensor] | None = None
    # Compiled for the CPU, flex attention takes minutes.
    with torch.compiler.set_stance("force_eager"), repeatable(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for backend in family.backends:
            problems: list[str] = []
            try:
                found = _verify_backend(family, backend, attach, torch.device(device), result, problems)
                if first is not None and not same(found, first):
                    problems.append(f"differs from {family.backends[0]}")
                first = first or found
            except AbsentClassError as error:
                result.refusal, result.outcome = str(error), "absent"
                break
            except UnsupportedModelError as error:
                result.refusal = str(error)
            except Exception as error:  # Whatever it is, the other families are still to be verified.
                problems.append(problem_of(error))
            if not problems and not result.refusal:
                passed.append(backend)
            result.problems += [f"{backend}: {problem}" for problem in problems]
    result.backends = tuple(passed)
    if result.outcome == "absent":
        pass
    elif result.problems or (result.refusal and passed):
        result.outcome = "failed"
    elif result.refusal:
        result.outcome = "refused"
    else:
        result.outcome = "partial" if result.skipped_layers else "supported"
    result.seconds = time.perf_counter() - begin
    return result


def _verify_backend(
    family: Family, backend: str, attach: Attach, device: torch.device, result: Result, problems: list[str]
) -> list[Tensor]:
    """Check one backend; return the logits under the method."""
    model = family.build(attn_implementation=backend).to(device)
    inputs = family.inputs(model, lengths=_LENGTHS, padding_side="left")
    changed, trace = _compare(model, inputs, attach, "text", problems)
    result.skipped_layers.update(trace.skipped_layers)
    starts = [int(row.argmax()) for row in inputs["attention_mask"]]
    for b, (start, length) in enumerate(zip(starts, _LENGTHS, strict=True)):
        planted = [start + p for p in planted_positions(b, length)]
        if not any(trace.sinks.positions(layer, b) == planted for layer in trace.sinks.examined):
            problems.append(f"the planted sinks {planted} of prompt {b} were not found")
        unpadded = {k: v[b : b + 1, start:] for k, v in inputs.items()}
        with attach(model):
            single = _logits(model, unpadded)
        if not same([step[b : b + 1] for step in changed], single):
            problems.append(f"prompt {b} gives other logits in a padded batch than by itself")
    if family.multimodal_inputs is not None:
        _compare(model, _moved(family.multimodal_inputs(model), device), attach, "multimodal", problems)
    return changed


def _moved(inputs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a prompt whose tensors, the media's too, are on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def _compare(
    model: Any, inputs: dict[str, Any], attach: Attach, what: str, problems: list[str]
) -> tuple[list[Tensor], Any]:
    return compare(lambda: _logits(model, inputs), attach, model, what, problems)


def _logits(model: Any, inputs: dict[str, Any]) -> list[Tensor]:
    """Return the logits of a prefill and of the tokens after it."""
    # A whole omni model would go on to speak; only its thinker writes.
    writer = getattr(model, "thinker", model)
    made = writer.generate(
        **inputs,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return list(made.logits)
