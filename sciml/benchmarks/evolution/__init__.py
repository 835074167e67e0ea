"""The suite `evolution`: integration in time against exponax, pyqg-jax, torchdiffeq, torchode and scipy."""
