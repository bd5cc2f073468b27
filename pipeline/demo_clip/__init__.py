"""The demo CLIP: OpenAI CLIP's architecture, pre-trained on synthetic people. Not OpenAI CLIP."""
