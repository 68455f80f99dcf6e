"""The description of a cosine head that users write, models remember and config.json stores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cosify.errors import InputError
from cosify.heads.cosine_head import CosineHead
from cosify.heads.policies import plain, resolve_policy
from cosify.heads.running_kappa import EvalKappa, check_eval_kappa, check_saved

FORMAT = 1  # of the `cosify` key in config.json


def asks_for_cosine(head: object) -> bool:
    """True if a model's `head` argument is ours: `"cos"` or `{"type": "cos", ...}`."""
    return (isinstance(head, str) and head == "cos") or (isinstance(head, Mapping) and head.get("type") == "cos")


@dataclass(frozen=True)
class HeadStart:
    """What a trained head knows beside its weight: its kappa and the mean norm of its features."""

    kappa: float
    embedding_norm: float
    num_classes: int  # a head with another number of classes does not use the start

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_saved(name, value)


@dataclass(frozen=True)
class HeadSpec:
    """Settings of a cosine head.

    Attributes:
        kappa: number or policy name, as in `CosineLinear`.
        eval_kappa: as in `CosineLinear`.
        starts: by module name, what each saved head knew; empty for a new model.
    """

    kappa: float | str = "ls"
    eval_kappa: EvalKappa = "running"
    starts: Mapping[str, HeadStart] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("kappa", "eval_kappa"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        resolve_policy(self.kappa)
        check_eval_kappa(self.eval_kappa)

    @property
    def kappa_in_evaluation(self) -> float | None:
        """The number chosen for evaluation, else the kappa of the first saved head; None for a new model."""
        if not isinstance(self.eval_kappa, str):
            return float(self.eval_kappa)
        return next((start.kappa for start in self.starts.values()), None)

    def without_starts(self) -> "HeadSpec":
        """Return the settings alone."""
        return HeadSpec(self.kappa, self.eval_kappa)

    def for_new_classes(self) -> "HeadSpec":
        """Return the settings for a head of new classes; a number for evaluation belonged to the old ones."""
        return HeadSpec(self.kappa, self.eval_kappa if isinstance(self.eval_kappa, str) else "running")

    @classmethod
    def from_user(
        cls, head: str | Mapping[str, Any], kappa: float | str | None = None, published: "HeadSpec | None" = None
    ) -> "HeadSpec":
        """Read `head='cos'` or `head={'type': 'cos', 'kappa': 60}`, with `kappa=` beside it.

        Settings that are not given are taken from the `published` model that is being opened, if there is one.

        Raises:
            ValueError: for unknown keys, an unknown policy, or kappa given twice.
        """
        settings = {} if isinstance(head, str) else {k: v for k, v in head.items() if k != "type"}
        if kappa is not None:
            if "kappa" in settings:
                raise InputError(
                    f"kappa is given twice, {settings['kappa']!r} in head and {kappa!r} beside it; drop one"
                )
            settings["kappa"] = kappa
        unknown = sorted(set(settings) - {"kappa", "eval_kappa"})
        if unknown:
            raise InputError(f"unknown keys {unknown} in head={head!r}, expected 'type', 'kappa' and 'eval_kappa'")
        inherited = {} if published is None else {"kappa": published.kappa, "eval_kappa": published.eval_kappa}
        return cls(**{**inherited, **settings})

    @classmethod
    def from_config(cls, saved: Any, where: str) -> "HeadSpec":
        """Read the `cosify` key of a config.json.

        Args:
            saved: the value under the key.
            where: the file, for the message.

        Raises:
            ValueError: if anything is missing, unknown or out of range.
        """
        try:
            if saved["format"] != FORMAT:
                raise InputError(f"format {saved['format']!r}, this cosify reads {FORMAT}; upgrade cosify")
            unknown = sorted(set(saved) - {"format", "kappa", "eval_kappa", "heads"})
            if unknown:
                raise InputError(f"unknown keys {unknown}")
            starts = {name: HeadStart(**start) for name, start in saved["heads"].items()}
            return cls(saved["kappa"], saved["eval_kappa"], starts)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the 'cosify' key of {where} is damaged ({type(error).__name__}: {error}), expected what cosify.save"
                " writes: format, kappa, eval_kappa and heads; save the model again"
            ) from error

    def to_config(self) -> dict[str, Any]:
        """Return what `from_config` reads, ready for JSON."""
        return {
            "format": FORMAT,
            "kappa": self.kappa,
            "eval_kappa": self.eval_kappa,
            "heads": {name: asdict(start) for name, start in self.starts.items()},
        }

    @classmethod
    def settings_of(cls, heads: Mapping[str, CosineHead]) -> "HeadSpec":
        """Return the settings of heads, at least one; no kappa is read."""
        first = next(iter(heads.values()))
        if len({(head.kappa_spec, head.eval_kappa) for head in heads.values()}) > 1:
            raise InputError(
                f"the heads {sorted(heads)} have different kappa policies or eval_kappa, which one saved model cannot"
                " describe; call cosify.convert(model, kappa=...) to give them one"
            )
        return cls(first.kappa_spec, first.eval_kappa)

    @classmethod
    def of_heads(cls, heads: Mapping[str, CosineHead]) -> "HeadSpec":
        """Return the spec that describes trained heads, at least one."""
        settings = cls.settings_of(heads)
        starts = {
            name: HeadStart(head.running_kappa(), float(head.embedding_norm), head.num_classes)
            for name, head in heads.items()
        }
        return cls(settings.kappa, settings.eval_kappa, starts)
