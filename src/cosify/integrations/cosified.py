"""A transformers model type for native models with a cosine head; importing it registers it with the Auto classes."""

import inspect
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForImageClassification

from cosify.errors import InputError
from cosify.heads import EvalKappa
from cosify.integrations import compat
from cosify.models import convert, find_heads

# Settings that a program makes on the outer configuration, and the wrapped model reads from its own.
_SHARED = ("id2label", "label2id", "output_attentions", "output_hidden_states", "problem_type", "return_dict")


@strict
class CosifiedConfig(PreTrainedConfig):
    """Configuration of `CosifiedForImageClassification`.

    From outside it looks like the wrapped model's configuration: attributes that it lacks are read from `base` and set
    there.  So options of `from_pretrained` reach the wrapped model as they reach a stock one.

    Attributes:
        base: the wrapped model's configuration, its head under the key `cosify`.
    """

    model_type = "cosified"
    sub_configs: ClassVar[dict[str, Any]] = {"base": AutoConfig}  # so dtype and attention reach `base`
    base: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.base, dict):
            super().__setattr__("base", AutoConfig.for_model(**self.base))
        super().__post_init__(**kwargs)
        for name in _SHARED:
            setattr(self, name, getattr(self, name))

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base")
        if name.startswith("_") or base is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        base = self.__dict__.get("base")
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name) or not hasattr(base, name)
        if own:
            super().__setattr__(name, value)
        if base is not None and (not own or name in _SHARED):
            setattr(base, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, with the label names of the wrapped model."""
        for name in ("id2label", "label2id") if self.base is not None else ():
            super().__setattr__(name, getattr(self.base, name))
        settings: dict[str, Any] = super().to_dict()
        base = settings.get("base") or {}
        for name in [name for name in base if name.startswith("_")]:  # such as a path on this machine
            del base[name]
        return settings


class CosifiedForImageClassification(compat.AsksTheWrappedModel, PreTrainedModel):
    """Any native transformers image classifier with a cosine head, saved and loaded with its kappa.

    Its folder says `model_type: cosified`, so a program without cosify refuses it; otherwise it would read the weight
    into a linear layer with another scale.  For a folder that stock programs read, use `cosify.save`.
    """

    config_class = CosifiedConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: CosifiedConfig) -> None:
        if config.base is None:
            raise InputError("CosifiedConfig has no base model; make it with CosifiedForImageClassification.from_model")
        super().__init__(config)
        self._adopt(AutoModelForImageClassification.from_config(config.base))
        self.post_init()

    @classmethod
    def from_model(
        cls, model: PreTrainedModel, kappa: float | str = "ls", *, eval_kappa: EvalKappa = "running"
    ) -> "CosifiedForImageClassification":
        """Wrap `model`, converting it in place if it has no cosine head yet; its weights are kept.

        Args:
            model: a transformers `...ForImageClassification`.
            kappa: as in `cosify.convert`, for a model that is not converted yet.
            eval_kappa: as in `cosify.convert`.

        Raises:
            ValueError: as `cosify.convert`.
        """
        if not find_heads(model):
            convert(model, kappa, eval_kappa=eval_kappa)
        base = model.config
        base.architectures = [type(model).__name__]  # a configuration may be of several classes
        shared = {name: getattr(base, name) for name in _SHARED}
        attention = compat.attention_of(base)
        with torch.device("meta"):
            wrapper: CosifiedForImageClassification = cls(
                CosifiedConfig(base=base.to_dict(), attn_implementation=attention, dtype=base.dtype, **shared)
            )
        wrapper.config.__dict__["base"] = base
        wrapper._adopt(model)
        wrapper.train(model.training)
        return wrapper

    def _adopt(self, model: PreTrainedModel) -> None:
        """Wrap `model`, and take over what it declares of itself."""
        self.model = model
        self.num_labels = model.config.num_labels
        self.main_input_name = model.main_input_name
        self.supports_gradient_checkpointing = model.supports_gradient_checkpointing
        parameters = inspect.signature(model.forward).parameters.values()
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
        self.accepts_loss_kwargs = getattr(model, "accepts_loss_kwargs", takes_any)  # as Trainer asks
        compat.share_attention(self.config, model.config)

    def forward(self, pixel_values: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        """Run the wrapped model: logits [B, C] = kappa * cosine, and the loss of Eq. (2) if `labels` are given."""
        if pixel_values is not None:  # ImageGPT has no such argument
            kwargs["pixel_values"] = pixel_values
        return self.model(labels=labels, **kwargs)


AutoConfig.register(CosifiedConfig.model_type, CosifiedConfig, exist_ok=True)
AutoModelForImageClassification.register(CosifiedConfig, CosifiedForImageClassification, exist_ok=True)
