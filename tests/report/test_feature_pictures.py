import torch

from ponder3d.report import feature_pictures


def test_both_pictures_have_the_same_colours():
    target, rendered = torch.randn(200, 5), torch.randn(200, 5)
    rendered[:50] = target[:50]
    target[60] = float("nan")
    truth, made = feature_pictures._coloured(target, rendered)
    assert torch.equal(truth[:50], made[:50]) and not torch.equal(truth[50:], made[50:])
    assert truth[60].tolist() == [255, 255, 255]
