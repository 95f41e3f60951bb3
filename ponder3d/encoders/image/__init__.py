"""What encoders of images are made of: backbones, masks of patches, pyramids, depth, and the lift into a volume."""
