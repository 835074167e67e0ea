"""Reading what other programs wrote."""

from .reading import Reading as Reading
from .recognition import read as read
