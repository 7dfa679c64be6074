"""Settings of a mesh fit, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.cadence import Cadence
from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeConfig:
    """The shape's part of the fit; lengths are in units of the longest side of the object's box."""

    shortest_edge: float = field(default=0.008, metadata={"help": "Finest edge length, reached at half of the run."})
    longest_edge: float = field(default=0.1, metadata={"help": "Coarsest edge length, which every vertex starts with."})
    rate: float = field(default=0.3, metadata={"help": "Step size in units of a vertex's edge length."})
    smoothing: float = field(
        default=0.05, metadata={"help": "Pull of each vertex to the mean of its neighbours (Palfinger's Laplacian)."}
    )
    consistency: float = field(default=0.05, metadata={"help": "Weight of 1 - cos between adjacent faces."})
    mask: float = field(default=1.0, metadata={"help": "Weight of the masks' L1."})
    normal: float = field(default=1.0, metadata={"help": "Weight of the normals' L1."})
    color: float = field(default=1.0, metadata={"help": "Weight of the colours' L1, for the targets with colours."})
    depth: float = field(
        default=10.0,
        metadata={
            "help": "Weight of the depths' L1, for the targets with depths. A floor beneath an overhang sinks only "
            "where it is more than what the new wall's normals cost: the weight of normals over the hollow's width."
        },
    )
    max_faces: int = field(default=200_000, metadata={"help": "Edges are no longer split above so many faces."})
    keep: float = field(
        default=0.01, metadata={"help": "Parts with less of the largest part's area than this are dropped at the end."}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextureConfig:
    """The texture's part of the fit."""

    size: int = field(default=1024, metadata={"help": "Texels along a side; 0 makes no texture."})
    sweeps: int = field(default=20, metadata={"help": "Corrections of the baked texture, each over all views."})
    max_faces: int = field(default=20_000, metadata={"help": "The mesh is simplified to this before it is unwrapped."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshFitConfig(RunConfig):
    """Masks, normals or colours of many views in, a textured mesh out."""

    data: str = field(
        default="demo",
        metadata={
            "help": "Mesh file (.obj, .glb, .ply) of which targets are rendered; or a capture folder with alpha "
            "(Blender's split files); or demo: a shape made on the fly."
        },
    )
    views: int = field(default=24, metadata={"help": "Views rendered of a mesh file to fit to."})
    test_views: int = field(default=8, metadata={"help": "Views rendered of a mesh file to test on."})
    resolution: int = field(default=256, metadata={"help": "Longest side of the images in pixels."})
    coarse: float = field(
        default=0.5, metadata={"help": "Part of the run on images of half the resolution; 0 starts at the full one."}
    )
    elevation: tuple[float, float] = field(
        default=(-90.0, 90.0), metadata={"help": "Lowest and highest rendered view, in degrees above the horizon."}
    )
    init: str = field(
        default="sphere",
        metadata={"help": "Shape to start from: sphere, hull (carved from the masks), or a mesh file."},
    )
    hull_resolution: int = field(default=64, metadata={"help": "Grid nodes along a side for --init=hull."})
    target: Literal["masks", "normals", "colors", "normals+colors", "normals+depths"] = field(
        default="normals",
        metadata={
            "help": "What the shape is fitted to; masks take part in all of them. Colours are those of vertices. "
            "Depths are for deep hollows, which normals alone do not open."
        },
    )
    holdout: str | None = field(default=None, metadata={"help": "Test views of a capture, as in fit_gaussians."})
    allow_external_paths: bool = field(default=False, metadata={"help": "Let a capture name files outside its folder."})
    steps: int = field(default=400, metadata={"help": "Steps of the shape's fit, resumed parts included."})
    batch: int = field(default=8, metadata={"help": "Views a step."})
    turntable_frames: int = field(default=60, metadata={"help": "Frames of the video; 0 makes none."})
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)
    cadence: Cadence = field(
        default_factory=lambda: Cadence(log_every=10, evaluate_every=100, preview_every=100, checkpoint_seconds=60.0)
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        shape, texture = self.shape, self.texture
        ranges = {
            "views": (self.views, 1, 10_000),
            "test_views": (self.test_views, 0, 10_000),
            "resolution": (self.resolution, 16, 8192),
            "coarse": (self.coarse, 0.0, 1.0),
            "hull_resolution": (self.hull_resolution, 8, 512),
            "batch": (self.batch, 1, 4096),
            "turntable_frames": (self.turntable_frames, 0, 10_000),
            "elevation": (min(self.elevation), -90.0, max(self.elevation)),
            "elevation's upper end": (max(self.elevation), -90.0, 90.0),
            "shape.shortest_edge": (shape.shortest_edge, 1e-4, shape.longest_edge),
            "shape.longest_edge": (shape.longest_edge, 1e-4, 1.0),
            "shape.max_faces": (shape.max_faces, 1000, 5_000_000),
            "shape.keep": (shape.keep, 0.0, 1.0),
            "texture.size": (texture.size, 0, 8192),
            "texture.sweeps": (texture.sweeps, 0, 10**6),
            "texture.max_faces": (texture.max_faces, 100, 5_000_000),
            **{
                f"shape.{name}": (getattr(shape, name), 0.0, 1e6)
                for name in ("rate", "smoothing", "consistency", "mask", "normal", "color", "depth")
            },
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, got {value}")
