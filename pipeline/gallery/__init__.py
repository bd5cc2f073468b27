"""A trained model put to use: images into vectors, folders of images into galleries that can be searched."""
