"""The task behind the names of Isaac Gym: `make`, `VecTask`, `gymapi`, `gymtorch`."""
