# SPDX-License-Identifier: Apache-2.0
"""What an installed wheel must do, wherever it is: run outside the repository.

python smoke.py            # NumPy alone
python smoke.py torch      # torch imported after the package
python smoke.py torch first
"""

import re
import sys
from importlib.util import find_spec
from pathlib import Path


def runtimes() -> set[str]:
    """Files of OpenMP runtimes in this process; "" where the system does not tell."""
    maps = Path("/proc/self/maps")
    return (
        set(re.findall(r"\S*libgomp\S*", maps.read_text())) if maps.exists() else {""}
    )


def main(words: list[str]) -> None:
    """Solve a small problem, and apply it to torch's weights if asked to."""
    if "first" in words:
        import torch
    import numpy as np

    import cintervene as ci

    assert ci.__file__.startswith(sys.prefix), ci.__file__
    inputs, outputs = np.eye(3), np.zeros((3, 4))
    found = ci.pcr(inputs, outputs, outputs[:1] + 0.1, 1.0)
    distances = np.linalg.norm(outputs + found.displacements - 0.1, axis=1)
    assert np.allclose(distances, 1.0), distances
    assert found.certified
    assert np.isclose(ci.set_nll(np.zeros((1, 4)), [0, 1])[0], np.log(2.0))
    if "torch" not in words:
        assert find_spec("torch") is None
        return
    import torch

    weight = torch.zeros(4, 3, dtype=torch.bfloat16)
    found.update.apply(weight)
    assert torch.allclose((weight @ weight.T).trace(), weight.square().sum(), rtol=0.1)
    assert len(runtimes()) == 1, runtimes()


if __name__ == "__main__":
    main(sys.argv[1:])
