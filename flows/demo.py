"""The embedded default: make a teacher and a data set, and write the pipeline file of them."""
