"""Video files of an environment: MP4 (H.264), or GIF and WebP that repeat for ever."""

from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import imageio.v2 as imageio
import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexgrasp.sim.rendering.overlay import Overlay, draw_overlay
from dexgrasp.sim.rendering.renderer import Renderer
from dexgrasp.sim.rendering.studio import Mesh
from dexgrasp.utils.files import atomic_path
from dexgrasp.utils.output import FILE_MARK

FORMATS = (".mp4", ".gif", ".webp")
GIF_COLOURS, WEBP_QUALITY = 64, 70
PALETTE_FRAMES = 6
"""Number of frames whose colours decide the palette of a GIF."""


def check_name(path: Path) -> None:
    """Raise ValueError where the suffix of `path` is none of FORMATS."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a recording is an .mp4, .gif or .webp file, got '{path}'")


class VideoWriter:
    """Writes frames to a video file; the suffix decides the format.

    The file appears under its name only when `close` has finished it; an exception in the `with` block or in `close`
    discards it. A block without frames ends with ValueError. MP4 frames go to the encoder as they come, GIF and WebP
    frames stay in memory until `close`.
    """

    def __init__(self, path: str | Path, rate_hz: float, width: int, height: int) -> None:
        """`rate_hz`: frames per second of the video."""
        self.path, self.frames = Path(path), 0
        check_name(self.path)
        if self.path.suffix == ".mp4" and (width % 16 or height % 16):
            raise ValueError(f"width and height of a video must be multiples of 16 pixels, got {width} x {height}")
        self._rate_hz = rate_hz
        self._output = atomic_path(self.path)
        self._images: list[Image.Image] = []
        self._writer: Any = None
        self._file = self._output.__enter__()
        if self.path.suffix == ".mp4":
            try:
                self._writer = self._open_encoder()
            except BaseException:
                self.discard()
                raise

    def append(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame (height, width, 3)."""
        if self._writer is not None:
            self._writer.append_data(frame)
        else:
            self._images.append(Image.fromarray(frame))
        self.frames += 1

    def close(self) -> Path:
        """Finish the file and return the path; raise ValueError, and leave no file, without frames."""
        try:
            if not self.frames:
                raise ValueError(f"nothing was captured for {self.path}")
            if self._writer is not None:
                self._writer.close()
            else:
                self._save_animation()
        except BaseException:
            self.discard()
            raise
        self._output.__exit__(None, None, None)
        return self.path

    def discard(self) -> None:
        """Remove what was written."""
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self._output.__exit__(RuntimeError, RuntimeError("the recording was discarded"), None)

    def _open_encoder(self) -> Any:
        comment = FILE_MARK.decode()
        return imageio.get_writer(
            self._file,
            fps=self._rate_hz,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,
            output_params=["-movflags", "+faststart", "-crf", "22", "-threads", "1", "-metadata", f"comment={comment}"],
        )

    def _save_animation(self) -> None:
        images, options = self._images, {"loop": 0, "duration": 1000 / self._rate_hz, "save_all": True}
        if self.path.suffix == ".webp":
            images[0].save(
                self._file, "WEBP", append_images=images[1:], quality=WEBP_QUALITY, method=4, xmp=FILE_MARK, **options
            )
            return
        images = with_common_palette(images)
        images[0].save(self._file, "GIF", append_images=images[1:], optimize=False, comment=FILE_MARK, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class VideoRecorder:
    """Records one environment, at `rate_hz` calls of `capture` per second of simulated time."""

    def __init__(
        self,
        path: str | Path,
        rate_hz: float,
        mesh: Mesh | None = None,
        width: int = 640,
        height: int = 480,
        azimuth_deg: float | None = None,
        speed: float = 1.0,
        scale: int = 1,
    ) -> None:
        """`mesh`: the object's visual mesh in the object frame, drawn instead of the convex pieces that collide.

        `azimuth_deg`: direction of the camera; None: a default. `speed`: of the video relative to real time. `scale`:
        the scene is drawn that many times larger and reduced, for smooth edges in small pictures.
        """
        self._renderer = Renderer(mesh, scale * width, scale * height, rate_hz, azimuth_deg)
        self._size = width, height
        self.writer = VideoWriter(path, rate_hz * speed, width, height)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.writer.path

    def capture(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        overlay: Overlay | None = None,
        touching: Collection[int] = (),
    ) -> None:
        """Append the present state as one frame; the bodies `touching` are drawn in another colour."""
        frame = self._renderer.shoot(model, data, touching)
        if frame.shape[1] != self._size[0]:
            frame = np.asarray(Image.fromarray(frame).resize(self._size, Image.Resampling.LANCZOS))
        self.writer.append(draw_overlay(frame, overlay) if overlay else frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renderer.close()
        self.writer.__exit__(kind, error, trace)


def with_common_palette(images: list[Image.Image]) -> list[Image.Image]:
    """Return the images with one palette of GIF_COLOURS.

    Without dither: unchanged regions then cost no bytes.
    """
    chosen = images[:: max(1, len(images) // PALETTE_FRAMES)]
    width, height = images[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for i, image in enumerate(chosen):
        sheet.paste(image, (0, i * height))
    palette = sheet.quantize(GIF_COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
