# SPDX-License-Identifier: Apache-2.0
"""Interventions as LoRA adapters of llama.cpp, on top of quantised models too."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from cintervene.errors import ArgumentError, InterventionError, ModelError
from cintervene.export.adapters.factors import Factors, relative_errors, uniform
from cintervene.export.artefact import Artefact
from cintervene.export.cards.card import Origin, Report, reported, write_card
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.models.gguf_header import check_gguf
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.staging import StagedDirectory

FILE = "adapter.gguf"
SUFFIXES = (".weight",)
# The library makes names for so many layers as a file says that it has.
MOST_BLOCKS = 4096


def save_gguf(
    intervention: Intervention,
    directory: str | os.PathLike[str],
    base: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    max_rank: int | None = None,
    report: Report | None = None,
    beyond_limits: bool = False,
) -> Artefact:
    """Write an intervention as a LoRA adapter that llama.cpp loads.

    Parameters
    ----------
    intervention : Intervention
        Made on the model in its original precision, or on the one that transformers
        reads from `base`.
    directory : path
        Gets ``adapter.gguf`` and a model card. Must not exist, or be empty; written
        whole or not at all.
    base : path
        The GGUF file that the adapter will be used on, quantised or not. Architecture
        and names are taken from it, and the shapes are compared.
    dtype : {"float32", "float16"}, default "float32"
        Of the factors.
    max_rank : int, optional
        Cut changes to this rank, for servers that take no higher one (vLLM's
        `max_lora_rank` is 16 unless it is raised). What is lost of each is in the
        artefact's `errors`; measure what it costs through `report`.
    report : mapping or callable, optional
        For the card; see `Origin`. A function is called with the change as it was read
        again from the file, and returns the report.
    beyond_limits : bool, default False
        Write it even if it crossed its limits; see `Intervention.save`.

    Returns
    -------
    Artefact

    Raises
    ------
    ArgumentError
        `directory` is not empty, or `dtype` is neither of these.
    ModelError
        `base` is no GGUF model, or its architecture is not known.
    InterventionError
        `base` lacks one of the weights, or it has another shape there, or the change
        crossed its limits and `beyond_limits` is False.
    OSError
        The file cannot be written.
    """
    if dtype not in ("float32", "float16"):
        raise ArgumentError(f"dtype: got {dtype!r}, expected float32 or float16")
    check_limits(intervention, beyond_limits)
    factors = uniform(intervention, dtype, max_rank)
    model = _Base(Path(base))
    names = {
        name: model.find(name, edit.update.shape)
        for name, edit in intervention.edits.items()
    }
    place = Path(directory)
    with StagedDirectory(place) as stage:
        _write(stage.path / FILE, model.architecture, names, factors)
        stored = _read(stage.path / FILE, names)
        errors = relative_errors(intervention, stored)
        content = reported(report, lambda: AdapterIntervention(intervention, stored))
        origin = Origin("gguf", report=content, errors=errors)
        write_card(intervention, stage.path, origin)
        stage.commit()
    rank = next(iter(factors.values())).a.shape[0]
    return Artefact(place, rank, errors)


class _Base:
    """Architecture, names and shapes of the model in a GGUF file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_gguf(path)
        gguf = import_module("gguf")
        try:
            reader = gguf.GGUFReader(path)
            self.architecture = str(reader.fields["general.architecture"].contents())
            count = int(reader.fields[f"{self.architecture}.block_count"].contents())
            if count > MOST_BLOCKS:
                raise ValueError(f"{count} layers")
        except OSError:
            raise
        except Exception as error:
            raise ModelError(
                f"{path} cannot be read as a GGUF model ({type(error).__name__}: "
                f"{error}); give the .gguf file that the adapter shall be used on"
            ) from error
        self.shapes = {
            tensor.name: tuple(int(n) for n in tensor.shape[::-1])
            for tensor in reader.tensors
        }
        architectures = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        if self.architecture not in architectures:
            raise ModelError(
                f"{path}: the package gguf does not know the architecture "
                f"{self.architecture!r}; update it (pip install -U gguf)"
            )
        self._map = gguf.get_tensor_name_map(architectures[self.architecture], count)

    def find(self, name: str, shape: tuple[int, int]) -> str:
        """Return llama.cpp's name of a weight."""
        names = (name, _plain(name))
        known = (self._map.get_name(one, try_suffixes=SUFFIXES) for one in names)
        counterpart = next((one for one in known if one in self.shapes), None)
        if counterpart is None:
            raise InterventionError(
                f"{self.path} holds no counterpart of {name}; the intervention was "
                f"made for another architecture than {self.architecture}"
            )
        if self.shapes[counterpart] != shape:
            raise InterventionError(
                f"{counterpart} in {self.path} is {self.shapes[counterpart]}, expected "
                f"{shape}; the intervention was made for another model"
            )
        return str(counterpart)


def _plain(name: str) -> str:
    """The name without what wrappers put before their language model's layers."""
    return re.sub(r"^.*?\.(?=layers\.\d)", "model.", name)


def _write(
    path: Path, architecture: str, names: dict[str, str], factors: dict[str, Factors]
) -> None:
    gguf = import_module("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    rank = next(iter(factors.values())).a.shape[0]
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp scales by alpha / rank.
    writer.add_float32("adapter.lora.alpha", float(rank))
    for name, pair in factors.items():
        writer.add_tensor(f"{names[name]}.lora_a", pair.a.numpy())
        writer.add_tensor(f"{names[name]}.lora_b", pair.b.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read(path: Path, names: dict[str, str]) -> dict[str, LowRankUpdate]:
    reader = import_module("gguf").GGUFReader(path)
    tensors = {t.name: torch.from_numpy(np.array(t.data)) for t in reader.tensors}
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    updates = {}
    for name, stored in names.items():
        pair = Factors(tensors[f"{stored}.lora_a"], tensors[f"{stored}.lora_b"])
        updates[name] = pair.update * (alpha / pair.a.shape[0])
    return updates
