"""Robot models: hands, arms, mounts, collision capsules."""
