"""Checkpoints: what is refused and how it is said, one load, no network, and memory given back."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import shutil
import socket
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import logging as transformers_logging

from tests.small_checkpoints import EMOTIONS, SENTIMENTS, edit_config, roberta
from vsa_core.backends import checkpoints
from vsa_core.backends.checkpoints import Network, find_checkpoint, precision_of
from vsa_core.errors import BackendError, ConfigError
from vsa_core.weights.catalogue import WEIGHTS
from vsa_core.weights.keep import add

CLASSIFIER = "AutoModelForSequenceClassification"
IDS = torch.tensor([[0, 1414, 232, 2], [0, 100, 2, 1]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def made(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RoBERTa classifier, and beside it the same one pickled; not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    roberta(root / "pickled", shared / "roberta_bpe", pickled=True)
    return roberta(root / "plain", shared / "roberta_bpe")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(made, tmp_path / "checkpoint")


def network(folder: Path, auto_class: str = CLASSIFIER, **options: Any) -> Network:
    return Network(find_checkpoint(str(folder)), auto_class, "cpu", **options)


def logits(network: Network) -> torch.Tensor:
    found: torch.Tensor = network.run(input_ids=IDS, attention_mask=MASK).logits
    return found


def write_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values))


# --- what it is ---------------------------------------------------------------------------


def test_a_checkpoint_says_what_it_is(made: Path) -> None:
    found = find_checkpoint(str(made))
    assert found.folder == made
    assert found.labels == SENTIMENTS
    assert found.config["model_type"] == "roberta"
    assert [file.name for file in found.weights] == ["model.safetensors"]
    pickled = find_checkpoint(str(made.with_name("pickled")))
    assert [file.name for file in pickled.weights] == ["pytorch_model.bin"]


def test_its_hash_is_that_of_what_decides_its_words(folder: Path, made: Path) -> None:
    hashes = [find_checkpoint(str(folder)).sha256]
    assert hashes == [find_checkpoint(str(made)).sha256]  # wherever it lies
    (folder / "README.md").write_text("A card.")
    (folder / "pytorch_model.bin").write_bytes(b"not what is loaded")
    assert find_checkpoint(str(folder)).sha256 == hashes[0]
    for name in ("merges.txt", "model.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b"\n")
        hashes.append(find_checkpoint(str(folder)).sha256)
    edit_config(folder, layer_norm_eps=1e-6)
    hashes.append(find_checkpoint(str(folder)).sha256)
    assert len(set(hashes)) == 4


def test_classes_without_names_are_numbered(folder: Path) -> None:
    edit_config(folder, id2label=None, label2id=None)
    assert find_checkpoint(str(folder)).labels == ("LABEL_0", "LABEL_1")
    edit_config(folder, architectures=["RobertaForMaskedLM"])
    assert find_checkpoint(str(folder)).labels == ()


def test_labels_are_in_the_order_of_their_index(folder: Path) -> None:
    edit_config(folder, id2label={"2": "c", "0": "a", "1": " b "})
    assert find_checkpoint(str(folder)).labels == ("a", "b", "c")


# --- what is refused on sight -------------------------------------------------------------

BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "torn config": (lambda d: (d / "config.json").write_text("{"), "cannot be read"),
    "deep config": (lambda d: (d / "config.json").write_text("[" * 100_000), "cannot be read"),
    "huge config": (lambda d: (d / "config.json").write_text(" " * 9_000_000), "cannot be read"),
    "a list": (lambda d: (d / "config.json").write_text("[]"), "holds no settings"),
    "no family": (lambda d: edit_config(d, model_type=None), "names no model_type"),
    "code": (lambda d: edit_config(d, auto_map={"AutoModel": "m.M"}), "code is never run"),
    "tokenizer code": (
        lambda d: write_json(
            d / "tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]}
        ),
        "tokenizer_config.json asks for code",
    ),
    "quantised": (lambda d: edit_config(d, quantization_config={}), "quantised by another tool"),
    "adapter": (lambda d: write_json(d / "adapter_config.json"), "is an adapter"),
    "endless": (
        lambda d: edit_config(d, num_hidden_layers=10**9),
        "layers is 1000000000, not 1 to",
    ),
    "below one": (lambda d: edit_config(d, vocab_size=-1), "vocab_size is -1"),
    "a word": (lambda d: edit_config(d, hidden_size="768"), "hidden_size is '768'"),
    "a gap": (lambda d: edit_config(d, id2label={"0": "a", "2": "b"}), "not numbered from 0"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "has no weights"),
    "no shard": (
        lambda d: (
            (d / "model.safetensors").unlink(),
            write_json(d / "model.safetensors.index.json", weight_map={"a": "x.safetensors"}),
        ),
        "lacks its shard",
    ),
    "a shard elsewhere": (
        lambda d: (
            (d / "model.safetensors").rename(d.parent / "x.safetensors"),
            write_json(d / "model.safetensors.index.json", weight_map={"a": "../x.safetensors"}),
        ),
        "lacks its shard",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_trusted_is_refused_on_sight(folder: Path, what: str) -> None:
    breaking, said = BROKEN[what]
    breaking(folder)
    with pytest.raises(BackendError, match=said) as refusal:
        find_checkpoint(str(folder))
    assert str(folder) in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_file_is_no_checkpoint(made: Path) -> None:
    with pytest.raises(BackendError, match="no folder"):
        find_checkpoint(str(made / "model.safetensors"))


# --- what is refused when it is loaded ----------------------------------------------------


def refused(network: Network) -> str:
    with pytest.raises(BackendError) as refusal:
        logits(network)
    message = str(refusal.value)
    assert "cannot be loaded" in message
    assert len(message) < 700
    return message


def test_a_missing_head_is_not_drawn_at_random(shared: Path, tmp_path: Path) -> None:
    bpe = shared / "roberta_bpe"
    without_head = roberta(tmp_path / "headless", bpe, without=["classifier."])
    assert "lack classifier.dense.bias" in refused(network(without_head))
    encoder = roberta(tmp_path / "encoder", bpe, labels=None)
    assert "lack classifier." in refused(network(encoder))
    network(encoder, "AutoModel").run(input_ids=IDS, attention_mask=MASK)


def test_a_missing_layer_is_not_drawn_at_random(shared: Path, tmp_path: Path) -> None:
    torn = roberta(tmp_path, shared / "roberta_bpe", without=["roberta.encoder.layer.1."])
    assert "lack roberta.encoder.layer.1" in refused(network(torn))
    with pytest.raises(BackendError, match=r"lack encoder\.layer\.1"):
        network(torn, "AutoModel").run(input_ids=IDS)


def test_an_encoder_may_lack_the_pooler_that_nobody_reads(shared: Path, tmp_path: Path) -> None:
    folder = roberta(tmp_path, shared / "roberta_bpe", labels=None, without=["pooler."])
    states = network(folder, "AutoModel").run(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert states.shape == (2, 4, 32)


def test_a_head_of_another_make_is_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["classifier.norm.weight"] = torch.ones(32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "have, unlike the network, classifier.norm.weight" in refused(network(folder))


def test_another_number_of_classes_is_refused(folder: Path) -> None:
    edit_config(folder, id2label=dict(enumerate(EMOTIONS)), label2id=None)
    assert "have in another shape classifier.out_proj.bias" in refused(network(folder))


def test_a_network_that_the_file_cannot_fill_takes_no_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_config(folder, hidden_size=16_384, intermediate_size=131_072, num_hidden_layers=64)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *a, **k: 1 / 0)
    assert "parameters, the weights have" in refused(network(folder))


def test_torn_weights_are_refused_in_one_line(folder: Path, made: Path) -> None:
    whole = (made / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(network(folder))
    (folder / "model.safetensors").unlink()
    whole = (made.with_name("pickled") / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    refused(network(folder))


def test_an_unknown_family_is_refused(folder: Path) -> None:
    edit_config(folder, model_type="no-such-family")
    assert "no-such-family" in refused(network(folder))


class Malicious:
    """Unpickled, it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.trace, "it ran")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_not_run(folder: Path, tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        if zipped:
            torch.save({"roberta.weight": Malicious(trace), "room": torch.zeros(2_000_000)}, file)
        else:
            pickle.dump([Malicious(trace), bytes(8_000_000)], file)
    refused(network(folder))
    assert not trace.exists()
    with (folder / "pytorch_model.bin").open("rb") as file:
        torch.load(file, weights_only=False) if zipped else pickle.load(file)
    assert trace.exists(), "the trap works"


def test_safetensors_are_taken_before_a_pickle(folder: Path, made: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"nothing that could be read")
    torch.testing.assert_close(logits(network(folder)), logits(network(made)))


# --- how it is loaded ---------------------------------------------------------------------


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whom anybody tried to reach; nobody is."""
    tried: list[Any] = []

    def refuse(*args: Any, **_: Any) -> Any:
        tried.append(args)
        raise OSError("no network in this test")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


@pytest.mark.parametrize("offline", ["0", "1"])
def test_nobody_is_asked_for_anything(
    made: Path, dialled: list[Any], monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline == "1")
    plain, pickled = network(made), network(made.with_name("pickled"))
    torch.testing.assert_close(logits(plain), logits(pickled))
    assert dialled == []


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_cannot_ask_for_a_kernel_of_its_own(
    folder: Path, made: Path, dialled: list[Any], key: str
) -> None:
    edit_config(folder, **{key: "kernels-community/flash-attn"})
    torch.testing.assert_close(logits(network(folder)), logits(network(made)))
    assert dialled == []


def test_attention_is_torchs_own(made: Path) -> None:
    config: Any = network(made).module().config
    assert config._attn_implementation == "sdpa"


def test_a_load_says_nothing_and_leaves_settings_alone(
    made: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    transformers_logging.set_verbosity_info()
    transformers_logging.enable_progress_bar()
    try:
        for precision in ("float32", "int8"):
            logits(network(made, precision=precision))
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity_warning()
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_it_is_loaded_once_by_all_threads_and_again_after_unloading(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[weakref.ref[torch.nn.Module]] = []
    usual = checkpoints._load

    def load_and_count(*args: Any) -> torch.nn.Module:
        model = usual(*args)
        loads.append(weakref.ref(model))
        return model

    monkeypatch.setattr(checkpoints, "_load", load_and_count)
    shared_network = network(made)
    shared_network.unload()
    assert loads == []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: logits(shared_network), range(8)))
    assert len(loads) == 1
    shared_network.unload()
    gc.collect()
    assert loads[0]() is None, "its memory is given back"
    for one in [*found, logits(shared_network)]:
        assert torch.equal(one, found[0])
    assert len(loads) == 2


# --- precision ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "device", "here", "there"),
    [
        ("auto", "auto", ("cpu", "float32"), ("cuda", "float16")),
        ("bfloat16", "auto", ("cpu", "bfloat16"), ("cuda", "bfloat16")),
        ("int8", "auto", ("cpu", "int8"), ("cpu", "int8")),
        ("auto", "cpu", ("cpu", "float32"), ("cpu", "float32")),
        ("float32", "cuda", None, ("cuda", "float32")),
    ],
)
def test_precision_and_device_are_resolved(
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    device: str,
    here: tuple[str, str] | None,
    there: tuple[str, str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision_of(precision, device) == there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if here is None:
        with pytest.raises(ConfigError, match="there is none here"):
            precision_of(precision, device)
    else:
        assert precision_of(precision, device) == here


@pytest.mark.parametrize(
    ("precision", "device", "said"),
    [
        ("fp16", "cpu", "precision is 'fp16': give one of auto"),
        ("auto", "gpu", "device is 'gpu': give one of auto"),
        ("int8", "cuda", "int8 is for the CPU"),
    ],
)
def test_other_precisions_and_devices_are_refused(precision: str, device: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        precision_of(precision, device)


@pytest.mark.parametrize(("precision", "apart"), [("bfloat16", 0.1), ("int8", 0.1)])
def test_less_precision_says_nearly_the_same(made: Path, precision: str, apart: float) -> None:
    whole, less = logits(network(made)), logits(network(made, precision=precision))
    assert 0 < (whole - less).abs().max() < apart
    assert whole.std() > 0.2, "there is something to miss"


def test_eight_bits_do_not_mix_what_is_in_a_batch(made: Path) -> None:
    eight_bits = network(made, precision="int8")
    kinds = {type(part).__name__ for part in eight_bits.module().modules()}
    assert "Int8Linear" in kinds
    alone = eight_bits.run(input_ids=IDS[:1], attention_mask=MASK[:1]).logits
    torch.testing.assert_close(alone, logits(eight_bits)[:1], atol=1e-5, rtol=0)


# --- from the store -----------------------------------------------------------------------


def test_it_is_found_in_a_cache_of_the_hubs_layout(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "theirs"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    for cache, name in (("cache/hub", "ours"), ("theirs", "users")):
        repository = tmp_path / cache / f"models--org--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(made, repository / "snapshots" / commit)
        for reference in (f"hf:org/{name}", f"hf:org/{name}@{commit}"):
            found = find_checkpoint(reference)
            assert found.sha256 == find_checkpoint(str(made)).sha256
    with pytest.raises(BackendError, match="vsa models pull hf:org/other"):
        find_checkpoint("hf:org/other")


def test_it_is_found_by_its_name_in_the_catalogue(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path))
    with pytest.raises(BackendError, match="vsa models pull twitter-roberta"):
        find_checkpoint("twitter-roberta")
    add(WEIGHTS["twitter-roberta"], made, trust=True)
    found = find_checkpoint("twitter-roberta")
    assert found.sha256 == find_checkpoint(str(made)).sha256
    assert found.folder.is_relative_to(tmp_path)
