"""Make, load and ask a tiny checkpoint of every ported model, and write down what holds."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder.anatomy import read_anatomy
from omnisink.errors import OmnisinkError
from omnisink.extras import install
from omnisink.models.loaded import Loaded
from omnisink.models.loading import load_model
from omnisink.models.writer import output_layer, writer_of
from omnisink.verification.compare import NEW_TOKENS, Attach, compare, problem_of, repeatable, same
from omnisink.verification.ports.media import Files, make_files
from omnisink.verification.ports.row import PortedModel
from omnisink.verification.tiny import CHANNEL, PEAK
from omnisink.verification.verify import Result

#: Of unlike lengths, so that one is padded in a batch.
_QUESTIONS = ("What is there, and for how long?", "What?")
#: Packages that read the files.
_NEEDED = ("av", "PIL", "soxr", "torchvision")
#: What reaches a decoder, in the words of transformers.
_ENTERING = ("inputs_embeds", "attention_mask", "position_ids")


def verify_ports(
    ports: Iterable[PortedModel],
    attach: Attach,
    progress: Callable[[str], None] | None = None,
    device: str | torch.device = "cpu",
) -> list[Result]:
    """Verify ported models one after the other.

    Parameters
    ----------
    ports : iterable of PortedModel
        The entries.
    attach : callable
        The method: ``with attach(model) as trace``.
    progress : callable, optional
        Called with the title of each model before it is verified.
    device : str or torch.device
        Device of the models.

    Returns
    -------
    list of Result
        In the order of the entries.
    """
    results = []
    for port in ports:
        if progress is not None:
            progress(port.title)
        results.append(verify_port(port, attach, device))
    return results


def verify_port(port: PortedModel, attach: Attach, device: str | torch.device = "cpu") -> Result:
    """Verify one ported model.

    A tiny checkpoint is saved and loaded as a released one is, and one token gets a massive activation. It is asked
    with each modality that the entry names, and a video with its sound where it takes both; on each attention
    backend. The sinks must be the planted tokens. A batch must give what its questions give one at a time. Another
    file must give other logits. After the block the model must be as before, to the bit. Where there is a reference,
    logits and sinks must be its own. Modalities that are not named must be refused.

    Parameters
    ----------
    port : PortedModel
        The entry.
    attach : callable
        The method: ``with attach(model) as trace``.
    device : str or torch.device
        Device of the model.

    Returns
    -------
    Result
        The checks that held and those that did not. A failure is a result too and is not raised. ``"absent"`` where a
        package that reads media is not installed.
    """
    result = Result(port.name, port.title, port.example, port.modalities, port.expectation, note=port.note)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        result.outcome, result.refusal = "absent", f"{', '.join(missing)} is missing: {install('media')}"
        return result
    begin = time.perf_counter()
    passed: list[str] = []
    made: tuple[Path, tuple[Files, Files]] | None = None
    with tempfile.TemporaryDirectory() as place, repeatable(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for backend in port.backends:
            problems: list[str] = []
            try:
                made = made or _made(port, Path(place))
                _Check(port, *made, backend, attach, device, problems).run()
            except Exception as error:  # Whatever it is, the other models are still to be verified.
                problems.append(problem_of(error))
            if not problems:
                passed.append(backend)
            result.problems += [f"{backend}: {problem}" for problem in problems]
    result.backends = tuple(passed)
    result.outcome = "failed" if result.problems else "supported"
    result.seconds = time.perf_counter() - begin
    return result


def _made(port: PortedModel, place: Path) -> tuple[Path, tuple[Files, Files]]:
    """Make the checkpoint and the files."""
    folder = place / "model"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        port.save(folder)
    return folder, (make_files(place / "a", 0), make_files(place / "b", 1))


class _Check:
    """The checks of one model on one backend; what does not hold is added to `problems`."""

    def __init__(
        self,
        port: PortedModel,
        folder: Path,
        files: tuple[Files, Files],
        backend: str,
        attach: Attach,
        device: str | torch.device,
        problems: list[str],
    ) -> None:
        self.port, self.files, self.attach, self.problems = port, files, attach, problems
        self.loaded: Loaded = load_model(
            folder, device=device, attn_implementation=backend, trust_remote_code=port.remote_code
        )
        if (found := read_anatomy(self.loaded.model).backends()) != {backend}:
            problems.append(f"the decoder runs on {', '.join(sorted(found))}")
        first = self.loaded.inputs(_QUESTIONS[1])
        self.planted = int(first["input_ids"][0, 0])
        _plant(self.loaded.model, self.planted)
        self.reference: nn.Module | None = None
        if port.reference is not None:
            self.reference = port.reference(folder).to(self.loaded.model.device)

    def run(self) -> None:
        """Ask about everything that the entry names, and about what it does not name."""
        for what, name in self.asked():
            self.check(what, *(_given(what, name, files) for files in self.files))
        for name in ("image", "video", "audio"):
            if name not in self.port.modalities:
                try:
                    self.loaded.inputs(_QUESTIONS[0], **_given(name, name, self.files[0]))
                except OmnisinkError:
                    continue
                self.problems.append(f"{name}: is taken, though the entry does not say so")

    def asked(self) -> list[tuple[str, str]]:
        """Return what is asked about, and the file for it."""
        asked = [(name, name) for name in self.port.modalities]
        if self.port.hears_videos and {"video", "audio"} <= set(self.port.modalities):
            asked.append(("video with its sound", "video"))
        return asked

    def check(self, what: str, given: dict[str, Any], other: dict[str, Any]) -> None:
        """Check one kind of prompt; `other` is the same with another file."""
        loaded, problems = self.loaded, self.problems
        batch = loaded.inputs(list(_QUESTIONS), **given)
        changed, trace = compare(lambda: _generated(loaded, batch), self.attach, loaded.model, what, problems)
        for b, question in enumerate(_QUESTIONS):
            tokens = zip(batch["input_ids"][b].tolist(), batch["attention_mask"][b].tolist(), strict=True)
            planted = [position for position, (token, real) in enumerate(tokens) if real and token == self.planted]
            if not any(trace.sinks.positions(layer, b) == planted for layer in trace.sinks.examined):
                problems.append(f"{what}: the planted sinks {planted} of prompt {b} were not found")
            with self.attach(loaded.model):
                single = _generated(loaded, loaded.inputs(question, **given))
            if not same([step[b : b + 1] for step in changed], single):
                problems.append(f"{what}: prompt {b} gives other logits in a padded batch than by itself")
        inputs = loaded.inputs(_QUESTIONS[0], **given)
        found, sinks = self.forward(inputs)
        if given != other and same([self.forward(loaded.inputs(_QUESTIONS[0], **other))[0][:, -1]], [found[:, -1]]):
            problems.append(f"{what}: another file gives the same logits")
        if self.reference is not None:
            entering: dict[str, Any] = {}
            text_model = read_anatomy(loaded.model).text_model
            watch = text_model.register_forward_pre_hook(lambda _, __, named: entering.update(named), with_kwargs=True)
            self.forward(inputs)
            watch.remove()
            taken = {name: entering[name] for name in _ENTERING if entering.get(name) is not None}
            with torch.inference_mode(), self.attach(self.reference) as own:
                expected = self.reference(**taken).logits
            if not same([found], [expected]) or sinks != str(own.sinks):
                problems.append(f"{what}: differs from {type(self.reference).__name__}")

    def forward(self, inputs: Any) -> tuple[Tensor, str]:
        """Return the logits (B, S, V) of one pass under the method, and the sinks."""
        with torch.inference_mode(), self.attach(self.loaded.model) as trace:
            logits: Tensor = self.loaded.adapter.forward(self.loaded, inputs).logits
        return logits, str(trace.sinks)


def _given(what: str, name: str, files: Files) -> dict[str, Any]:
    """Return the arguments of `Loaded.inputs` for a kind of prompt."""
    if name == "text":
        return {}
    # A video by itself is silent.
    return {name: getattr(files, name), **({"audio": what != name} if name == "video" else {})}


def _generated(loaded: Loaded, inputs: Any) -> list[Tensor]:
    """Return the logits of a prefill and of the tokens after it."""
    options = {
        **loaded.adapter.generate_options(NEW_TOKENS),
        "eos_token_id": None,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    with torch.inference_mode():
        return list(loaded.adapter.generate(loaded, inputs, **options).logits)


def _plant(model: Any, token: int) -> None:
    """Give the embedding of a token one massive activation."""
    embedding = writer_of(model).get_input_embeddings().weight
    output = output_layer(model)
    if output is not None and output.weight is embedding:
        raise OmnisinkError("the tiny checkpoint ties its embedding to its output layer: save it without")
    with torch.no_grad():
        embedding[token, CHANNEL] = PEAK
