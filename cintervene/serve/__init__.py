# SPDX-License-Identifier: Apache-2.0
"""Bans on words and patterns where models are served; see docs/serving.md."""

from cintervene.serve.ban import WordBan
from cintervene.words.vocabulary import Vocabulary

__all__ = ["Vocabulary", "WordBan"]
