"""The command `dexgrasp viewer`: task and camera in a browser."""
