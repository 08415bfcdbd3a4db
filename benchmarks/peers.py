# SPDX-License-Identifier: Apache-2.0
"""Two peers of weight interventions, written from their papers: RMU and addition."""

import copy

import torch

from cintervene import models
from cintervene.activations.capture import capture
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import render

BATCH = 4


def added_direction(model, tokenizer, harmful, harmless, layer):
    """Return a function of the strength, which makes a model with the direction added.

    A rank-one change adds the difference of the classes' mean states (Arditi et al.,
    arXiv 2406.11717) in proportion to how much the projection's input is like its mean
    on harmful prompts. Strength 1 adds the difference as it is.
    """
    bad, good = (
        [render(tokenizer, text) for text in texts] for texts in (harmful, harmless)
    )
    with evaluating(model):
        direction = leaving(model, bad, layer) - leaving(model, good, layer)
    mean = capture(model, bad, [layer])[layer].inputs.float().mean(dim=0)

    def changed(strength):
        found = copy.deepcopy(model)
        (target,) = models.find_targets(found, [layer])
        with torch.no_grad():
            step = torch.outer(strength * direction, mean / (mean @ mean))
            target.weight.copy_(target.weight.float() + step)
        return found

    return changed


def leaving(model, sequences, layer):
    """Mean of what leaves a layer at the last token."""
    rows = []
    for ids in sequences:
        every = torch.ones(1, len(ids), dtype=torch.bool)
        rows.append(states(model, torch.tensor([ids]), every, layer)[-1].float())
    return torch.stack(rows).mean(dim=0)


def rmu(model, forget, retain, *, layer, steering, weight, steps, rate):
    """Yield (step, model) while layers up to `layer` unlearn (arXiv 2403.03218).

    States of `forget` are driven to one random direction, those of `retain` held.

    Parameters
    ----------
    forget, retain : list of list of int
        Token ids.
    steering : float
        Length of the direction, in mean lengths of the states to be forgotten.
    weight : float
        Of what is held.
    rate : float
        AdamW's.
    steps : list of int
        When to yield; training ends at the last.
    """
    pupil = copy.deepcopy(model).float().requires_grad_(False)
    teacher = copy.deepcopy(pupil)
    layers = range(layer - 2, layer + 1)
    weights = [target.weight for target in models.find_targets(pupil, layers)]
    for one in weights:
        one.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=rate)
    source = torch.Generator().manual_seed(0)
    control = torch.rand(model.config.hidden_size, generator=source)
    with torch.no_grad():
        length = states(teacher, *batch_of(forget, 0), layer).norm(dim=1).median()
    control = steering * length * control / control.norm()
    for step in range(steps[-1]):
        bad, good = batch_of(forget, step), batch_of(retain, step)
        with torch.no_grad():
            held = states(teacher, *good, layer)
        away = (states(pupil, *bad, layer) - control).square().mean()
        drift = (states(pupil, *good, layer) - held).square().mean()
        optimiser.zero_grad()
        (away + weight * drift).backward()
        optimiser.step()
        if step + 1 in steps:
            yield step + 1, copy.deepcopy(pupil).to(model.dtype)


def batch_of(sequences, step):
    """The next few sequences, padded on the right, and which tokens count.

    Not the first: its state is a hundred times as long, whatever it is, and would be
    all that is trained on.
    """
    chosen = [sequences[(BATCH * step + k) % len(sequences)] for k in range(BATCH)]
    length = max(map(len, chosen))
    rows = [[*ids, *[ids[0]] * (length - len(ids))] for ids in chosen]
    mask = [[0 < k < len(ids) for k in range(length)] for ids in chosen]
    return torch.tensor(rows), torch.tensor(mask)


class _Reached(Exception):
    """The layer has answered; what comes after it is of no interest."""


def states(model, ids, mask, layer):
    """What leaves a layer at the tokens that count, (tokens, hidden)."""
    found = []

    def keep(module, inputs, output):
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    hook = models.find_decoder(model).layers[layer].register_forward_hook(keep)
    try:
        model(input_ids=ids, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0][mask]
