"""Training a network: any torch.nn.Module, any loss, on one device or many, resumable to the last bit."""

from .samples import Samples, TensorSamples

__all__ = ["Samples", "TensorSamples"]
