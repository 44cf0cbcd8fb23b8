"""Questions in plain words: from a sentence in English or Chinese to a question of the registry. `understanding` is
pure; `asking` reads names from a source and asks."""
