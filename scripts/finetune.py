# /// script
# requires-python = ">=3.10"
# dependencies = ["cosify[lab]"]
# [tool.uv.sources]
# cosify = { path = "..", editable = true }
# ///
"""`cosify finetune` for accelerate launch, torchrun and uv run: see `cosify finetune --help`."""

from cosify.commands.finetune import COMMAND

if __name__ == "__main__":
    COMMAND.run()
