# /// script
# requires-python = ">=3.10"
# dependencies = ["cosify[lab]"]
# [tool.uv.sources]
# cosify = { path = "..", editable = true }
# ///
"""`cosify probe` for accelerate launch, torchrun and uv run: see `cosify probe --help`."""

from cosify.commands.probe import COMMAND

if __name__ == "__main__":
    COMMAND.run()
