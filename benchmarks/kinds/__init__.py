"""Models beside classifiers of pictures: transformers of text, of sound, and torchvision's other tasks."""
