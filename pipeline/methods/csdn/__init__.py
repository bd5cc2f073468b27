"""CSDN (TMM 2025): supervised, with text prototypes of people."""
