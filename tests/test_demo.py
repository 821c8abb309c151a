"""The whole demo, with its page in a browser."""

import re

import pytest
import torch
from conftest import page_in_browser
from torch import nn

from msfnet.demo import ShuffledFrames


def test_shuffled_frames_are_the_same_frames_in_another_order():
    x = torch.arange(8.0).view(1, 1, 8, 1, 1).repeat(3, 2, 1, 4, 4)
    shuffled = ShuffledFrames(nn.Identity())(x)
    orders = shuffled[:, 0, :, 0, 0]  # N T
    assert torch.equal(orders.sort(1).values, x[:, 0, :, 0, 0])
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(shuffled, orders[:, None, :, None, None].expand_as(x))
    assert torch.equal(shuffled, ShuffledFrames(nn.Identity())(x))


@pytest.mark.slow
def test_demo_recognizes_what_shuffling_destroys(tmp_path, capsys):
    from msfnet.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--out", str(tmp_path)])
    assert stopped.value.code == 0
    captured = capsys.readouterr()
    top1 = float(re.search(r"video top-1 on 200 test videos: ([\d.]+)%", captured.out)[1])
    shuffled = float(re.search(r"frames of each clip shuffled: ([\d.]+)%", captured.out)[1])
    assert top1 >= 90
    assert shuffled <= 30  # chance is 12.5
    assert "epoch   9/9" in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run", "report.html"}
    check_page(tmp_path / "report.html")


def check_page(page_file):
    """The page of the demo has all its parts, and every image is shown."""
    with page_in_browser(page_file) as page:
        assert page.locator("h1").inner_text() == "msfnet demo"
        assert page.locator(".tile").count() == 8
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        assert len(widths) >= 3  # and examples of what was confused
        assert min(widths) > 100
