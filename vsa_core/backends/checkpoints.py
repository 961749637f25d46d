"""Transformers networks: loaded once from a checked checkpoint, offline, and freed when asked.

No code of a checkpoint is run, no pickle is opened but by torch's `weights_only` reader, and a
network with a part that the file does not fill is refused, where transformers would draw that
part at random.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vsa_core.backends.checkpoint_files import Checkpoint, find_checkpoint
from vsa_core.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "Network", "find_checkpoint", "precision_of", "quiet_transformers"]

PRECISIONS = ("auto", "float32", "float16", "bfloat16", "int8")
DEVICES = ("auto", "cpu", "cuda")

# What a whole checkpoint may lack: it is used in training only, or is not on the way to what a
# bare encoder gives.
_TRAINING_ONLY = ("masked_spec_embed",)
_POOLER = "pooler."

# transformers' verbosity and progress bar are the process's: one load at a time changes them.
_LOADING = threading.Lock()


def precision_of(precision: str, device: str) -> tuple[str, str]:
    """The device and the precision that two options mean here.

    Args:
        precision: one of `PRECISIONS`; auto is float32 on the CPU and float16 on cuda.
        device: one of `DEVICES`; auto is cuda where there is one, but for int8, which is the CPU's.

    Returns:
        `cpu` or `cuda`, and a precision other than auto.

    Raises:
        ConfigError: no such precision or device, cuda is not here, or int8 on cuda.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}: give one of {', '.join(PRECISIONS)}")
    if device not in DEVICES:
        raise ConfigError(f"device is {device!r}: give one of {', '.join(DEVICES)}")
    if precision == "int8" and device == "cuda":
        raise ConfigError("precision int8 is for the CPU: give device: cpu, or another precision")
    if precision == "int8" or device == "cpu":
        return "cpu", "float32" if precision == "auto" else precision
    import torch

    if not torch.cuda.is_available():
        if device == "cuda":
            raise ConfigError("device is cuda, and there is none here: give device: cpu or auto")
        return "cpu", "float32" if precision == "auto" else precision
    return "cuda", "float16" if precision == "auto" else precision


class Network:
    """A checkpoint's network: loaded at its first use, once, and freed by `unload`.

    It may be used from several threads.

    Args:
        checkpoint: from `find_checkpoint`.
        auto_class: transformers' class that makes it, such as "AutoModelForSequenceClassification".
        device, precision: as `precision_of` takes them.

    Attributes:
        device: `cpu` or `cuda`.
        tag: the resolved precision; part of a backend's id.

    Raises (when made):
        ConfigError: as `precision_of`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        auto_class: str,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.device, self.tag = precision_of(precision, device)
        self._checkpoint = checkpoint
        self._auto_class = auto_class
        self._model: torch.nn.Module | None = None
        self._lock = threading.Lock()

    def module(self) -> torch.nn.Module:
        """The network itself, for whoever takes it apart.

        Raises:
            BackendError: at the first use, when the weights cannot be read or do not fill the
                network that the configuration describes.
        """
        with self._lock:
            if self._model is None:
                self._model = _load(self._checkpoint, self._auto_class, self.device, self.tag)
            return self._model

    def run(self, **inputs: Any) -> Any:
        """The network's output for keyword inputs, without gradients.

        Args:
            inputs: the model's own arguments. Tensors are brought to its device, those of floats
                to its precision too; anything else (`output_hidden_states=True`) is passed on.

        Returns:
            transformers' output record; its tensors lie on `device`, in the network's precision.

        Raises:
            BackendError: as `module`.
        """
        import torch

        model = self.module()
        floats = torch.float32 if self.tag == "int8" else getattr(torch, self.tag)
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                dtype = floats if value.is_floating_point() else value.dtype
                inputs[name] = value.to(self.device, dtype)
        with torch.inference_mode():
            return model(**inputs)

    def unload(self) -> None:
        """Give the memory back; the next `run` loads the network again."""
        with self._lock:
            if self._model is None:
                return
            self._model = None
            gc.collect()
            if self.device == "cuda":
                import torch

                torch.cuda.empty_cache()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no load report from transformers inside; its settings come back.

    One thread at a time: both settings are the process's.
    """
    from transformers.utils import logging

    with _LOADING:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()


def _load(checkpoint: Checkpoint, auto_class: str, device: str, precision: str) -> torch.nn.Module:
    """The whole network in its precision on its device, ready to be run."""
    import torch
    import transformers

    auto = getattr(transformers, auto_class)
    floats = torch.float32 if precision == "int8" else getattr(torch, precision)
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
            # One that names a kernel on the Hub would have it fetched and run.
            config._attn_implementation = None
            _check_size(checkpoint, auto, config)
            model, report = auto.from_pretrained(
                checkpoint.folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors="safetensors" in checkpoint.weights[0].name,
                weights_only=True,
                dtype=floats,
                ignore_mismatched_sizes=True,  # which `_check_whole` refuses, by name
                output_loading_info=True,
            )
        except BackendError:
            raise
        except Exception as error:  # whatever a broken checkpoint makes transformers raise
            raise BackendError(_refused(checkpoint, first_line(error))) from error
    _check_whole(checkpoint, auto_class, model, report)
    model.eval()
    if precision == "int8":
        from vsa_core.backends.int8 import quantise

        quantise(model.base_model)  # the head is small, and says what the label is
    return model.to(device)


def _check_size(checkpoint: Checkpoint, auto: Any, config: Any) -> None:
    """Refuse, before any memory is taken, a configuration that the weights cannot fill."""
    import torch

    with torch.device("meta"):
        parameters = sum(p.numel() for p in auto.from_config(config).parameters())
    size = sum(file.stat().st_size for file in checkpoint.weights)
    if parameters > size:  # no precision takes less than a byte
        raise BackendError(
            _refused(
                checkpoint,
                f"config.json describes {parameters:,} parameters, the weights have {size:,} bytes",
            )
        )


def _check_whole(
    checkpoint: Checkpoint, auto_class: str, model: torch.nn.Module, report: Mapping[str, Any]
) -> None:
    """Refuse a network of which the file lacks a part, or has more of the head than it."""
    missing = [
        name
        for name in sorted(report["missing_keys"])
        if not name.endswith(_TRAINING_ONLY)
        and not (auto_class == "AutoModel" and name.startswith(_POOLER))
    ]
    encoder = getattr(model, "base_model_prefix", "")
    heads = (
        ()
        if auto_class == "AutoModel"
        else tuple(f"{name}." for name, _ in model.named_children() if name != encoder)
    )
    foreign = [name for name in sorted(report["unexpected_keys"]) if name.startswith(heads)]
    other = sorted(str(key[0]) for key in report["mismatched_keys"])
    for names, what in (
        (other, "have in another shape"),
        (missing, "lack"),
        (foreign, "have, unlike the network,"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BackendError(
                _refused(checkpoint, f"the weights {what} {', '.join(names[:3])}{more}")
            )


def _refused(checkpoint: Checkpoint, reason: str) -> str:
    return (
        f"checkpoint {checkpoint.folder} cannot be loaded: {reason}: pull it again, or use another"
    )


def first_line(error: Exception) -> str:
    """What another library's error says first, short enough to stand in a line of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(":.")[:300]
