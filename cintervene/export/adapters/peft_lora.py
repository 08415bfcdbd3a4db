# SPDX-License-Identifier: Apache-2.0
"""Interventions as LoRA adapters of peft, which hold the same change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cintervene.errors import InterventionError
from cintervene.export.adapters.factors import Factors, relative_errors, uniform
from cintervene.export.artefact import Artefact
from cintervene.export.cards.card import Origin, Report, reported, write_card
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.json_text import parse_json
from cintervene.utils.staging import StagedDirectory

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Types of models with experts in which peft, when it loads an adapter, takes down_proj
# for what it is called. In others it is taken for that of the experts, or renamed.
TAKEN_AS_NAMED = frozenset(
    {
        "aria_text", "hy_v3", "jamba", "kolibri1", "llama4", "llama4_text",
        "mimo_v2_flash", "minimax_m3_vl_text", "nemotron_h", "qwen2_moe", "qwen3_5_moe",
        "qwen3_5_moe_text",
    }
)  # fmt: skip


def save_lora(
    intervention: Intervention,
    directory: str | os.PathLike[str],
    *,
    base: str | None = None,
    dtype: str = "float32",
    max_rank: int | None = None,
    report: Report | None = None,
    beyond_limits: bool = False,
) -> Artefact:
    """Write an intervention as a LoRA adapter that `peft.PeftModel` loads.

    The adapter's change is that of the intervention: `lora_alpha` is the rank, and
    changes of a lower rank are filled up with zeros. peft adds it to the outputs and
    rounds no weight, which is the only difference to `Intervention.apply`.

    Parameters
    ----------
    intervention : Intervention
    directory : path
        Must not exist, or be an empty directory; written whole or not at all.
    base : str, optional
        Where peft finds the base model, a name on the hub or a path; by default what
        the model was called.
    dtype : {"float32", "bfloat16", "float16"}, default "float32"
        Of the factors. The narrow ones halve the file and round the change.
    max_rank : int, optional
        Cut changes to this rank, for servers that take no higher one (vLLM's
        `max_lora_rank` is 16 unless it is raised). What is lost of each is in the
        artefact's `errors`; measure what it costs through `report`.
    report : mapping or callable, optional
        For the model card; see `Origin`. A function is called with the change as it was
        read again from the files, and returns the report.
    beyond_limits : bool, default False
        Write it even if it crossed its limits; see `Intervention.save`.

    Returns
    -------
    Artefact

    Raises
    ------
    ArgumentError
        `directory` is not empty, or `dtype` is none of these.
    InterventionError
        The intervention changes nothing, `dtype` cannot hold it, `report` is about
        another one, it changes a `down_proj` where peft would take that for one of
        experts, or it crossed its limits and `beyond_limits` is False.
    OSError
        The files cannot be written.

    Notes
    -----
    LoRA is Hu et al., arXiv 2106.09685.
    """
    check_limits(intervention, beyond_limits)
    _refuse_beside_experts(intervention)
    factors = uniform(intervention, dtype, max_rank)
    place = Path(directory)
    with StagedDirectory(place) as stage:
        _write(intervention, stage.path, factors, base)
        stored = read_lora(intervention, stage.path)
        errors = relative_errors(intervention, stored)
        content = reported(report, lambda: AdapterIntervention(intervention, stored))
        origin = Origin("lora", base or "", content, errors)
        write_card(intervention, stage.path, origin)
        stage.commit()
    rank = next(iter(factors.values())).a.shape[0]
    return Artefact(place, rank, errors)


def _refuse_beside_experts(intervention: Intervention) -> None:
    """Refuse a name that peft takes for one of the experts'."""
    names = [name for name in intervention.edits if name.endswith("down_proj.weight")]
    experts = intervention.metrics.get("experts_left_alone")
    if names and experts and experts.get("model_type") not in TAKEN_AS_NAMED:
        raise InterventionError(
            f"{names[0]} is changed beside a mixture of experts, and peft takes a "
            "down_proj there for that of the experts; write a checkpoint, or make the "
            'change with matrix="o_proj"'
        )


def _write(
    intervention: Intervention,
    directory: Path,
    factors: dict[str, Factors],
    base: str | None,
) -> None:
    tensors = {}
    for name, pair in factors.items():
        tensors[_key(name, "A")] = pair.a
        tensors[_key(name, "B")] = pair.b
    try:
        save_file(tensors, directory / WEIGHTS, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    config = _config(intervention, factors, base or intervention.model)
    text = json.dumps(config, indent=2, sort_keys=True)
    (directory / CONFIG).write_text(text + "\n", "utf-8")


def read_lora(
    intervention: Intervention, directory: str | os.PathLike[str]
) -> dict[str, LowRankUpdate]:
    """Return the changes that an adapter holds of the weights of an intervention.

    Raises
    ------
    InterventionError
        The adapter lacks a weight or changes others.
    OSError
        A file is missing.
    """
    directory = Path(directory)
    config = parse_json((directory / CONFIG).read_text("utf-8"))
    tensors = load_file(directory / WEIGHTS)
    expected = {_key(name, kind) for name in intervention.edits for kind in "AB"}
    if set(tensors) != expected:
        odd = sorted(expected ^ set(tensors))
        raise InterventionError(
            f"{directory} is not the adapter of this intervention: {odd[0]} is in one "
            "of them only"
        )
    scale = config["lora_alpha"] / config["r"]
    return {
        name: Factors(tensors[_key(name, "A")], tensors[_key(name, "B")]).update * scale
        for name in intervention.edits
    }


def _key(name: str, kind: str) -> str:
    return f"{PREFIX}{_module(name)}.lora_{kind}.weight"


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _config(
    intervention: Intervention, factors: dict[str, Factors], base: str
) -> dict[str, Any]:
    rank = next(iter(factors.values())).a.shape[0]
    transposed = {edit.transposed for edit in intervention.edits.values()}
    if len(transposed) > 1:
        raise InterventionError(
            "some weights are stored as (d_in, d_out) and some as (d_out, d_in); one "
            "adapter cannot say that, export them one by one"
        )
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": transposed.pop(),
        "target_modules": sorted(_module(name) for name in factors),
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
