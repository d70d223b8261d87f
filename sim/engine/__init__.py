"""Physics engines: MuJoCo on CPU cores, MuJoCo Warp on a GPU."""
