# SPDX-License-Identifier: Apache-2.0
"""What a model's directory holds after its writer was killed, beside other writers.

usage: python benchmarks/bench_crashes.py [KILLS OF EACH WRITER]

A sharded model is replaced by a changed one, by this package, by `save_pretrained`
of transformers and by `save_torch_state_dict` of huggingface_hub, each killed at many
of its calls that change files. "mixed" is a directory that loads and is neither model.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import crashes


def script(kills: int) -> None:
    """In the process that counts: kill the writers, and print what was left."""
    import huggingface_hub
    import torch
    from support.crash_writers import World, models, transformers
    from support.crashes import Writer, outcomes

    from cintervene.models import loading

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        with loading.quiet():
            changed = transformers.AutoModelForCausalLM.from_pretrained(world.changed)
        ours = next(
            one for one in models(world) if one.name == "apply in place, shards"
        )
        state = changed.state_dict()

        def with_transformers(root: Path) -> None:
            changed.save_pretrained(root / "m", max_shard_size="12kB")

        def with_hub(root: Path) -> None:
            huggingface_hub.save_torch_state_dict(
                state, root / "m", max_shard_size="12kB"
            )

        def read(root: Path) -> None:
            transformers.AutoModelForCausalLM.from_pretrained(root / "m")

        writers = [
            Writer("cintervene, apply_to_directory", ours.prepare, ours.write, read),
            Writer(
                "transformers, save_pretrained", ours.prepare, with_transformers, read
            ),
            Writer(
                "huggingface_hub, save_torch_state_dict", ours.prepare, with_hub, read
            ),
        ]
        for writer in writers:
            found = Counter(one.state for one in outcomes(writer, kills, 0))
            counts = ", ".join(
                f"{found[s]} {s}" for s in ("old", "new", "absent", "mixed")
            )
            print(f"{writer.name:40} {sum(found.values()):4} kills: {counts}")


def main() -> None:
    """Compile what counts, and run this script with it."""
    kills = sys.argv[1] if sys.argv[1:] else "120"
    with tempfile.TemporaryDirectory() as place:
        library = crashes.build(Path(place))
        print(crashes.run(Path(__file__), library, "--counting", kills), end="")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--counting"]:
        script(int(sys.argv[2]))
    else:
        main()
