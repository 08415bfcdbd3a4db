# SPDX-License-Identifier: Apache-2.0
"""``python -m cintervene`` is the command line."""

import sys

from cintervene.cli import main

if __name__ == "__main__":
    sys.exit(main())
