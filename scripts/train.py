# /// script
# requires-python = ">=3.10"
# dependencies = ["cosify[lab]"]
# [tool.uv.sources]
# cosify = { path = "..", editable = true }
# ///
"""`cosify train` for accelerate launch, torchrun and uv run: see `cosify train --help`."""

from cosify.commands.train import COMMAND

if __name__ == "__main__":
    COMMAND.run()
