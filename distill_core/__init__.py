"""Distil a BERT-like teacher, export the student, quantize it, verify it. No Prefect, no MLflow."""
