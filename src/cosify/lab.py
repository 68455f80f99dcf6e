"""Importing this raises one clear error where the extra `lab` is missing; each package of the lab does so first."""

from cosify.extras import require_lab

require_lab()
