"""A transformers model type of its own for native models with a cosine head."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForImageClassification

from cosify.errors import InputError
from cosify.heads import EvalKappa
from cosify.models import convert, find_heads


@strict
class CosifiedConfig(PreTrainedConfig):
    """Configuration of `CosifiedForImageClassification`.

    Attributes:
        base: the wrapped model's configuration as a dictionary, its head under the key `cosify`.
    """

    model_type = "cosified"
    base: dict[str, Any] | None = None

    def base_config(self) -> Any:
        """Return the wrapped model's configuration, with this one's labels."""
        if self.base is None:
            raise InputError("CosifiedConfig has no base model; make it with CosifiedForImageClassification.from_model")
        config = AutoConfig.for_model(**self.base)
        config.id2label, config.label2id = self.id2label, self.label2id
        return config


class CosifiedForImageClassification(PreTrainedModel):
    """Any native transformers image classifier with a cosine head, saved and loaded with its kappa.

    Its folder says `model_type: cosified`, so that a program without cosify refuses it, instead of reading the weight
    into a linear layer with another scale.  For a folder that stock programs read, use `cosify.save`.
    """

    config_class = CosifiedConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss has no normaliser to be passed by Trainer

    def __init__(self, config: CosifiedConfig) -> None:
        super().__init__(config)
        self.model = AutoModelForImageClassification.from_config(config.base_config())
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
        base = {**model.config.to_dict(), "architectures": [type(model).__name__]}  # a config may have several classes
        wrapper = cls(CosifiedConfig(base=base, id2label=model.config.id2label, label2id=model.config.label2id))
        wrapper.model = model
        return wrapper

    def forward(self, pixel_values: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        """Run the wrapped model: logits [B, C] = kappa * cosine, and the loss of Eq. (2) if `labels` are given."""
        return self.model(pixel_values=pixel_values, labels=labels, **kwargs)


def register() -> None:
    """Make the Auto classes know the model type."""
    AutoConfig.register(CosifiedConfig.model_type, CosifiedConfig, exist_ok=True)
    AutoModelForImageClassification.register(CosifiedConfig, CosifiedForImageClassification, exist_ok=True)
