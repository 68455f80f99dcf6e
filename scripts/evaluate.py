# /// script
# requires-python = ">=3.10"
# dependencies = ["cosify[lab]"]
# [tool.uv.sources]
# cosify = { path = "..", editable = true }
# ///
"""`cosify evaluate` for accelerate launch, torchrun and uv run: see `cosify evaluate --help`."""

from cosify.commands.evaluate import COMMAND

if __name__ == "__main__":
    COMMAND.run()
