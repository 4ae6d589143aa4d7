"""What a reader has and a page does not show."""

from core.models.base import ImageShape
from core.models.fmnist_cnn import FMNISTCNN

model = FMNISTCNN().build(10, ImageShape(1, 28, 28))
