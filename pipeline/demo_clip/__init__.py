"""The demo CLIP: OpenAI CLIP's architecture, pre-trained on synthetic persons. Not OpenAI CLIP."""
