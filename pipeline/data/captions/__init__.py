"""Caption files: reading, checking, reporting and control captions.

Writing captions belongs to `pipeline.captioning`.
"""
