"""One module per `dexgrasp bench` command."""
