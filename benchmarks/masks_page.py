"""The page of benchmarks/masks.py: the worst and the best frames as one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

from data_tools.flow import OpticalFlow, grey_frames
from data_tools.report.pages.cards import picture, webp
from data_tools.report.pages.document import document

WORST, BEST = 16, 8  # frames on the page
APART = 10  # frames: nearer ones of a sequence look alike, and one of them is shown
HIT, ALARM, MISS = (60, 200, 90), (230, 60, 50), (60, 120, 240)  # RGB
QUALITY = 75  # of WebP
STYLE = f".hit {{ color: rgb{HIT}; }} .alarm {{ color: rgb{ALARM}; }} .miss {{ color: rgb{MISS}; }}"


@dataclass(frozen=True)
class Shown:
    """A sequence and what was found in it: uint8 (T, H, W, 3), bool (T, H, W), 255 * score, (T, 3) of J, precision, recall."""

    name: str
    frames: np.ndarray
    truth: np.ndarray
    soft: np.ndarray
    scores: np.ndarray


def page(method: str, shown: Sequence[Shown]) -> bytes:
    """The whole file."""
    iou = np.concatenate([one.scores[:, 0] for one in shown])
    tiles = [
        (f"{100 * np.mean([one.scores[:, 0].mean() for one in shown]):.1f} %", "mean J", "over sequences"),
        (f"{100 * np.mean(iou < 0.1):.0f} %", "lost", "frames with J below 10 %"),
        (str(len(iou)), "frames", f"of {len(shown)} sequences"),
    ]
    by_sequence = sorted(shown, key=lambda one: float(one.scores[:, 0].mean()))
    rows = "".join(
        f'<tr><td>{escape(one.name)}</td><td class="number">'
        + '</td><td class="number">'.join(f"{100 * value:.1f}" for value in one.scores.mean(0))
        + "</td></tr>"
        for one in by_sequence
    )
    heads = "".join(f"<th>{text}</th>" for text in ("sequence", "J", "precision", "recall"))
    sections = {
        "worst": ("The worst frames", legend() + "".join(figure(*at) for at in extremes(shown, WORST, worst=True))),
        "best": ("The best frames", legend() + "".join(figure(*at) for at in extremes(shown, BEST, worst=False))),
        "all": ("All sequences, the worst first", f'<table class="rows"><tr>{heads}</tr>{rows}</table>'),
    }
    about = "A pixel is foreground where its soft score is above 0.5; J is the intersection over union with the mask that people drew."
    return document(f"Motion masks: {method}", about, tiles, sections, style=STYLE)


def extremes(shown: Sequence[Shown], number: int, worst: bool) -> list[tuple[Shown, int]]:
    """The frames with the lowest or highest J, those of a sequence at least 10 frames apart; of equals the one that finds more wrongly."""
    ranked = sorted(
        ((one, t) for one in shown for t in range(len(one.frames))),
        key=lambda at: (float(at[0].scores[at[1], 0]), -float(np.mean(at[0].soft[at[1]]))),
        reverse=not worst,
    )
    chosen: list[tuple[Shown, int]] = []
    for one, t in ranked:
        if all(other.name != one.name or abs(t - s) >= APART for other, s in chosen):
            chosen.append((one, t))
        if len(chosen) == number:
            break
    return chosen


def legend() -> str:
    """What the four pictures are."""
    colours = '<span class="hit">found and true</span>, <span class="alarm">found alone</span>, <span class="miss">missed</span>'
    return f"<p>Frame; flow to the next frame (colour: direction, brightness: speed); soft mask; {colours}.</p>"


def figure(one: Shown, t: int) -> str:
    """A frame's four pictures side by side."""
    soft = np.repeat(one.soft[t, :, :, None], 3, axis=2)
    tiles = [one.frames[t], flow_colours(one, t), soft, compared(one, t)]
    images = "".join(f'<div style="flex:1 1 0">{picture(webp([tile], QUALITY))}</div>' for tile in tiles)
    iou, precision, recall = 100 * one.scores[t]
    told = (f"frame {t}", f"J {iou:.0f}", f"precision {precision:.0f}", f"recall {recall:.0f}")
    facts = f"<b>{escape(one.name)}</b>" + "".join(f"<span>{text}</span>" for text in told)
    return f'<figure class="clip"><figcaption>{facts}</figcaption><div class="film">{images}</div></figure>'


def flow_colours(one: Shown, t: int) -> np.ndarray:
    """uint8 (H, W, 3): direction as hue, speed as brightness, the frame's fastest pixel brightest."""
    other = t + 1 if t + 1 < len(one.frames) else t - 1
    if other < 0:
        return np.zeros_like(one.frames[t])
    grey = grey_frames(one.frames[[t, other]], one.frames.shape[1:3])
    flow = OpticalFlow("medium")(grey[0], grey[1])
    speed, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    hue = (angle / 2).astype(np.uint8)
    brightness = (255 * speed / max(float(np.quantile(speed, 0.99)), 0.5)).clip(0, 255).astype(np.uint8)
    return cv2.cvtColor(np.stack([hue, np.full_like(hue, 200), brightness], -1), cv2.COLOR_HSV2RGB)


def compared(one: Shown, t: int) -> np.ndarray:
    """The frame, coloured by whether the mask (score above 0.5) is right."""
    from fbm_dist.evaluation.segmentation.figures import overlay  # which loads torch: its memory is not uNLC's

    found, truth = one.soft[t] > 127, one.truth[t]
    out = one.frames[t]
    for where, colour in ((found & truth, HIT), (found & ~truth, ALARM), (~found & truth, MISS)):
        out = overlay(out, where, colour)
    return out
