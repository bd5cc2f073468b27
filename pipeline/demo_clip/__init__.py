"""The demo CLIP: stand-in weights of OpenAI CLIP's architecture, pre-trained on drawn people. Not OpenAI CLIP."""
