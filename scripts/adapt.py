# /// script
# requires-python = ">=3.10"
# dependencies = ["cosify[lab]"]
# [tool.uv.sources]
# cosify = { path = "..", editable = true }
# ///
"""`cosify adapt` for accelerate launch, torchrun and uv run: see `cosify adapt --help`."""

from cosify.commands.adapt import COMMAND

if __name__ == "__main__":
    COMMAND.run()
