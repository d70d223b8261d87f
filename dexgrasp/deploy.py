"""Classes for running an exported policy on a robot; needs numpy, onnxruntime and yaml only."""

from dexgrasp.policies.deploy.bundle import BundleError, read_contract, refuse_unknown_hand
from dexgrasp.policies.deploy.policy import Command, Observation, Policy, PregraspPlan
from dexgrasp.policies.deploy.safety_gate import DesiredCommand, MeasuredState, SafeCommand, SafetyCfg, SafetyGate

__all__ = [
    "BundleError",
    "Command",
    "DesiredCommand",
    "MeasuredState",
    "Observation",
    "Policy",
    "PregraspPlan",
    "SafeCommand",
    "SafetyCfg",
    "SafetyGate",
    "read_contract",
    "refuse_unknown_hand",
]
