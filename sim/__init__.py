"""The simulated world: hands, arms, objects, scenes, engines and the grasping task."""
