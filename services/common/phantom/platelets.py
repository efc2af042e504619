"""Draw platelets."""

from __future__ import annotations

import numpy as np

from services.common.phantom.canvas import DrawnCell, canvas_for, outline, trim
from services.common.phantom.options import PhantomOptions
from services.common.phantom.planes import density_of, f32, lerp
from services.common.phantom.scene import Scene


def _draw_platelet(radius: float, rng: np.random.Generator) -> DrawnCell:
    canvas = canvas_for(radius, rng)
    edge = outline(canvas, 0.10)
    body = canvas.cover(edge, soft=0.35 * radius)
    grains = f32(np.clip(0.45 + 0.4 * canvas.band(0.12, 0.4), 0.0, 1.0) * canvas.cover(f32(edge + 0.2), soft=0.3 * radius))
    density = lerp(density_of((198, 172, 206)), density_of((118, 74, 146)), grains)
    solid = edge <= 0.0
    return trim(DrawnCell(f32(density * body[..., None]), solid, np.zeros_like(solid)), margin=3)


def draw_platelets(scene: Scene, options: PhantomOptions, rng: np.random.Generator) -> None:
    """Draw the platelets, on free glass where there is room."""
    for _ in range(options.platelets):
        platelet = _draw_platelet(options.cell_radius * rng.uniform(0.17, 0.30), rng)
        height, width = platelet.solid.shape
        for attempt in range(60):
            left = int(rng.integers(0, max(options.width - width, 1)))
            top = int(rng.integers(0, max(options.height - height, 1)))
            on_red = attempt < 40 and scene.red.overlap(platelet.solid, left, top)
            if not on_red and not scene.guard.overlap(platelet.solid, left, top):
                scene.add(platelet, left, top)
                scene.guard.stamp(platelet.solid, left, top)
                break
