from tests.plots.drawing import drawn

__all__ = ["drawn"]
