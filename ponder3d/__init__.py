"""ponder3d: teach 3D encoders by rendering (PonderV2), and prove what they learnt."""

__version__ = "0.1.0"
