"""Files that are made from the settings. `python -m replay.settings.derive` writes them; a test keeps them current."""
