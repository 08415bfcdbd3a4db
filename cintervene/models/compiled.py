# SPDX-License-Identifier: Apache-2.0
"""What `torch.compile` has put in the place of a model's code.

Code that was compiled before a hook was there does not call it: torch leaves hooks out
of what it looks at before it runs compiled code again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch._dynamo

from cintervene.utils.shared import SharedChange

__all__ = ["EAGER", "NoticedHooks"]


def _run_as_written() -> Callable[[], object]:
    stance = torch.compiler.set_stance("force_eager")
    return lambda: stance.__exit__(None, None, None)


def _look_at_hooks() -> Callable[[], object]:
    config = torch._dynamo.config
    before = config.skip_nnmodule_hook_guards
    config.skip_nnmodule_hook_guards = False
    return lambda: setattr(config, "skip_nnmodule_hook_guards", before)


# Inside, a model's own code runs instead of what it was compiled to. That goes for all
# threads: torch knows one stance for the whole process.
EAGER = SharedChange(_run_as_written)
_LOOKING = SharedChange(_look_at_hooks)


class NoticedHooks:
    """Has code be compiled anew that calls the hooks of now, and looks at them first.

    From when it is made until `remove`; then code is compiled as before.
    """

    def __init__(self) -> None:
        _LOOKING.__enter__()
        torch.compiler.reset()

    def remove(self) -> None:
        """Take it back."""
        _LOOKING.__exit__(None, None, None)
        torch.compiler.reset()
