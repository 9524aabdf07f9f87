"""The loss zoo: pure functions of the embeddings of two views, one row per pair."""

from jepa_dyn.losses.barlow_twins import barlow_twins_loss, cross_correlation

__all__ = ["barlow_twins_loss", "cross_correlation"]
