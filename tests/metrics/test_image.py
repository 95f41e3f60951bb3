import math

import numpy as np
import pytest
import torch

from ponder3d.metrics.image import depth_l1, psnr, ssim


def test_psnr_of_a_constant_offset():
    image = torch.rand(2, 5, 7, 3) * 0.5
    assert float(psnr(image + 0.1, image)) == pytest.approx(20, abs=1e-4)  # -10 log10(0.01)
    assert float(psnr(image + 0.5, image)) == pytest.approx(-20 * math.log10(0.5), abs=1e-4)


def test_psnr_of_identical_images_is_a_hundred():
    image = torch.rand(4, 3)
    assert float(psnr(image, image)) == 100


def test_psnr_sees_the_mask_only():
    truth = torch.zeros(4, 3)
    rendered = torch.tensor([[0.1] * 3, [0.9] * 3, [0.1] * 3, [0.9] * 3])
    assert float(psnr(rendered, truth, torch.tensor([True, False, True, False]))) == pytest.approx(20, abs=1e-4)


def test_without_a_pixel_there_is_no_figure():
    image, none = torch.rand(4, 3), torch.zeros(4, dtype=torch.bool)
    assert math.isnan(float(psnr(image, image, none)))
    assert math.isnan(float(depth_l1(image[:, 0], image[:, 0], none)))


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, window by window, moments about the mean."""
    weight = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)])
    weight /= weight.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            for channel in range(3):
                a, b = (i[top : top + 11, left : left + 11, channel] for i in (x, y))
                ma, mb = (weight * a).sum(), (weight * b).sum()
                va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
                cov = (weight * (a - ma) * (b - mb)).sum()
                values.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return float(np.mean(values))


def test_ssim_is_that_of_the_paper(device):
    x = torch.rand(3, 14, 17, 3)
    y = (x + 0.3 * torch.randn(3, 14, 17, 3)).clamp(0, 1)
    expected = [reference_ssim(a.double().numpy(), b.double().numpy()) for a, b in zip(x, y, strict=True)]
    assert ssim(x.to(device), y.to(device)).tolist() == pytest.approx(expected, abs=1e-4)
    assert 0.2 < min(expected) and max(expected) < 0.95


def test_ssim_of_identical_and_of_constant_images():
    x = torch.rand(2, 12, 12, 3)
    assert ssim(x, x).tolist() == pytest.approx([1, 1], abs=1e-5)
    # Without structure, only luminance is compared: (2 ab + c1) / (a^2 + b^2 + c1).
    a, b = torch.full((1, 11, 11, 3), 0.2), torch.full((1, 11, 11, 3), 0.6)
    assert ssim(a, b).tolist() == pytest.approx([(0.24 + 1e-4) / (0.4 + 1e-4)], abs=1e-4)


def test_ssim_keeps_images_apart():
    x, y = torch.rand(2, 12, 13, 3), torch.rand(2, 12, 13, 3)
    y[1] = x[1]
    first, second = ssim(x, y).tolist()
    assert first < 0.3 and second == pytest.approx(1, abs=1e-5)


def test_depth_error_of_the_masked_pixels():
    rendered, truth = torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[1.5, 1.0], [3.0, 0.0]])
    assert float(depth_l1(rendered, truth, truth > 0)) == pytest.approx(0.5)
