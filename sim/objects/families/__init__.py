"""Parametric families of household objects: name -> function from `ParameterSampler` to `Shape`.

A family builds about the origin in metres, with z up where the thing has an upside; the generator checks sizes,
recentres and weighs.
"""

from collections.abc import Callable

from dexgrasp.sim.objects.families import containers, solids, tools, toys, wearables
from dexgrasp.sim.objects.parameter_draws import ParameterSampler
from dexgrasp.sim.objects.shapes import Shape

FAMILIES: dict[str, Callable[[ParameterSampler], Shape]] = {
    "box": solids.box,
    "cylinder": solids.cylinder,
    "capsule": solids.capsule,
    "ellipsoid": solids.ellipsoid,
    "superquadric": solids.superquadric,
    "rock": solids.rock,
    "blob": solids.blob,
    "banana": solids.banana,
    "toy_brick": solids.toy_brick,
    "angle": solids.angle,
    "dumbbell": solids.dumbbell,
    "bottle": containers.bottle,
    "jar": containers.jar,
    "mug": containers.mug,
    "cup": containers.cup,
    "bowl": containers.bowl,
    "pot": containers.pot,
    "pan": containers.pan,
    "plate": containers.plate,
    "tray": containers.tray,
    "wine_glass": containers.wine_glass,
    "ring": containers.ring,
    "hammer": tools.hammer,
    "screwdriver": tools.screwdriver,
    "pen": tools.pen,
    "clamp": tools.clamp,
    "wrench": tools.wrench,
    "spoon": tools.spoon,
    "drill": tools.drill,
    "torch": tools.torch,
    "figure": toys.figure,
    "animal": toys.animal,
    "vehicle": toys.vehicle,
    "airplane": toys.airplane,
    "shoe": wearables.shoe,
    "headphones": wearables.headphones,
}
