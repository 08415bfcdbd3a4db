# SPDX-License-Identifier: Apache-2.0
"""What the configurations of all methods have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from cintervene.errors import ArgumentError
from cintervene.utils.literals import Matrix
from cintervene.utils.parameters import Described, parameter, parameters
from cintervene.utils.ranges import (
    Auto,
    Choice,
    Layers,
    Optional,
    Options,
    Positive,
    Scale,
    Share,
    Texts,
    Whole,
    Withheld,
)

__all__ = ["DescentConfig", "MethodConfig", "ProjectionConfig", "RequestConfig"]

Ball = Literal["preserve", "frobenius"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Described):
    """Parameters of every method.

    Attributes
    ----------
    layers : "auto" or sequence of int
        Layers to change; negative indices count from the end. What `"auto"` takes is
        said by each method.
    preserve : sequence of str
        What is to stay as it is, besides the package's own: texts (PCR) or prompts.
    template_options : mapping of str to Any, optional
        What to give the chat template, such as ``{"enable_thinking": False}``; without
        them all modes that the template has take turns.
    max_kl : float
        Drift allowed on benign answers of the tuning split, nats a token.
    """

    # The name by which `defend` and the command know the method.
    method: ClassVar[str]
    # By the name of a budget: parameters that differ from their defaults in it.
    budgets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    # Whether processes that share work can share the method's: see `utils.ranks`. With
    # others each would do all of it, and they are refused where there are several.
    dealt: ClassVar[bool] = False

    layers: Literal["auto"] | Sequence[int] = parameter(
        Auto(Layers(), "layer indices, none twice, e.g. [14, 16]"), "auto",
        "layers to change such as 26-29 or 3,7, or auto",
        group="main",
    )  # fmt: skip
    preserve: Sequence[str] = parameter(
        Texts(), (),
        "a UTF-8 file with a text (pcr) or a request on each line that is to be left "
        "alone, besides the package's own",
        private=True, group="texts",
    )  # fmt: skip
    max_kl: float = parameter(
        Positive(metavar="NATS"), 0.05, "drift allowed on everyday prompts, a token",
        group="limits",
    )  # fmt: skip
    template_options: Mapping[str, Any] | None = parameter(
        Optional(Options()), None,
        "what to give the chat template, such as enable_thinking=false; otherwise all "
        "modes that it has take turns",
        group="main",
    )  # fmt: skip

    @property
    def chosen_layers(self) -> Sequence[int]:
        """The layers, where "auto" was resolved."""
        assert not isinstance(self.layers, str)
        return self.layers

    def to_dict(self, private: bool = True) -> dict[str, Any]:
        """Return the method's name and all values; see `Described.to_dict`.

        Options of the template are among them only where there are some.
        """
        values = super().to_dict(private)
        if values["template_options"] is None:
            del values["template_options"]
        return {"method": self.method, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one of what `to_dict` returned; see `Described.from_dict`.

        Raises
        ------
        ArgumentError
            It is of another method, a name is unknown, or a value out of range.
        """
        method = values.get("method", cls.method)
        if method != cls.method:
            raise ArgumentError(
                f"method: got {method!r}, expected {cls.method!r} for {cls.__name__}"
            )
        return super().from_dict({k: v for k, v in values.items() if k != "method"})

    def check_known(self) -> None:
        """Refuse texts of which only the number was recorded.

        Raises
        ------
        ArgumentError
            Names the parameter.
        """
        for one in parameters(self):
            value = getattr(self, one.name)
            if isinstance(value, Withheld):
                raise ArgumentError(
                    f"{one.name}: got only their number, {value.count}, which is all "
                    "that an intervention records of them; give the texts again, e.g. "
                    f"dataclasses.replace(config, {one.name}=texts)"
                )

    @classmethod
    def check_names(cls, names: Any, more: str = "") -> None:
        """Refuse what is no parameter of the method; see `Described.check_names`."""
        super().check_names(names, more or f" of method {cls.method!r}")


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig(MethodConfig):
    """Parameters of methods that change one projection of each layer.

    Attributes
    ----------
    matrix : {"down_proj", "o_proj"}
        Which projection: the MLP's or the attention's.
    """

    matrix: Matrix = parameter(
        Choice(names=get_args(Matrix)), "down_proj",
        "the projection of each layer that is changed: the MLP's or the attention's",
        group="main",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RequestConfig(MethodConfig):
    """Parameters of methods that are about harmful requests.

    Attributes
    ----------
    harmful : sequence of str, optional
        Requests to refuse; the package's own without it.
    max_false_refusals : float
        Share of benign requests of the tuning split that may be refused beyond what the
        model did before.
    """

    # The parameters that say how many of the package's benign prompts are taken: where
    # there are some, at least one prompt has to be left to answer as before.
    benign_counts: ClassVar[tuple[str, ...]] = ()
    dealt = True

    harmful: Sequence[str] | None = parameter(
        Optional(Texts(least=1)), None,
        "a UTF-8 file with a request on each line that is to be refused or left "
        "unanswered, or own for the package's, which is the default",
        private=True, group="texts",
    )  # fmt: skip
    max_false_refusals: float = parameter(
        Positive(metavar="SHARE"), 0.03, "benign requests refused in addition",
        group="limits",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = [getattr(self, name) for name in self.benign_counts]
        if counts and not (self.preserve or any(counts)):
            raise ArgumentError(
                f"{', '.join(self.benign_counts)}: got 0 and no preserve=, which "
                "leaves no prompt to be answered; expected at least one of either"
            )

    @property
    def requests(self) -> Sequence[str]:
        """The requests given, or the package's own."""
        if self.harmful is not None:
            return self.harmful
        # Files of data are nothing that the help of a command has to wait for.
        from cintervene import data

        return [prompt.text for prompt in data.harmful_prompts("train")]


@dataclass(frozen=True, kw_only=True)
class DescentConfig(ProjectionConfig, RequestConfig):
    """Parameters of projected gradient descent over some layers (TSR and ARR).

    Attributes
    ----------
    radius : float
        Largest size of each layer's change, relative to the weight's, both in the norm
        that `ball` names. The multiple that is chosen in the end may be up to twice as
        large.
    steps : int
        Projected gradient steps.
    parts : int
        Into how many parts the examples are divided; each step looks at one.
    ball : {"preserve", "frobenius"}
        What the radius bounds: `"preserve"` how far benign inputs and outputs are
        moved, `"frobenius"` the plain norm of the change. Both are relative to the same
        norm of the weight.
    length : float
        Length of the first step in units of the radius, at the layer that gains most;
        later ones are shorter.
    inertia : float
        Weight of the gradients before in the direction of a step.
    kl_weight : float
        Weight of the divergence on benign examples. Its derivatives come from few
        tokens and differ from part to part; with a large weight, steps follow that
        noise.
    first_token : float
        Share of a refusal's first token in its loss.
    ridge : float
        Of the norm's inputs, relative to the mean squared input; not used in the
        Frobenius ball.
    output_ridge : float
        Of its outputs, relative to their mean Fisher information; as `ridge`.
    answers, answer_tokens : int
        Everyday prompts that the model answers beforehand, and how far.
    borderline : int
        Of the package's prompts that only sound harmful, how many are to be answered as
        before.
    """

    benign_counts = ("answers", "borderline")
    budgets: ClassVar = {
        "small": {"steps": 12, "answers": 60, "borderline": 60},
        "default": {},
        "large": {"steps": 80, "answers": 342, "answer_tokens": 32},
    }

    radius: float = parameter(
        Scale(), 0.03, "largest size of a layer's change, relative to its weight's"
    )
    steps: int = parameter(Whole(least=1), 40, "steps of the descent")
    parts: int = parameter(
        Whole(least=1), 32, "parts of the examples; each step looks at one"
    )
    ball: Ball = parameter(
        Choice(names=get_args(Ball)), "preserve",
        "the norm that the radius bounds: of what benign inputs see, or the plain one",
    )  # fmt: skip
    length: float = parameter(
        Scale(), 0.3, "length of the first step, in units of the radius"
    )
    inertia: float = parameter(Share(), 0.7, "weight of the gradients before")
    kl_weight: float = parameter(
        Scale(zero=True), 5.0, "weight of the divergence on benign examples"
    )
    first_token: float = parameter(
        Share(), 0.3, "share of a refusal's first token in its loss"
    )
    ridge: float = parameter(
        Scale(), 1e-2,
        "ridge of the norm's inputs, relative to the mean squared input",
    )  # fmt: skip
    output_ridge: float = parameter(
        Scale(), 0.1,
        "ridge of the norm's outputs, relative to their mean Fisher information",
    )  # fmt: skip
    answers: int = parameter(
        Whole(), 340, "everyday prompts that the model answers beforehand"
    )
    answer_tokens: int = parameter(Whole(), 20, "length of these answers, in tokens")
    borderline: int = parameter(
        Whole(), 340, "prompts that only sound harmful, to be answered as before"
    )
