"""SYSU-MM01: folders, camera names and published counts."""
